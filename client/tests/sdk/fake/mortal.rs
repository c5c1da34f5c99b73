//! A client that dies: from some call on none of its actions takes place, background tasks
//! included.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rangedb_client::net::{BoxFuture, CallError, Net};
use rangedb_client::v1::{request, response};
use rangedb_client::{Client, Config};

use super::{Cluster, address};

#[derive(Clone)]
pub struct Mortal {
    cluster: Cluster,
    calls: Arc<AtomicUsize>,
    dies_at: usize,
    /// True if the last call still arrives.
    last_arrives: bool,
    dead: Arc<AtomicBool>,
}

impl Mortal {
    /// Makes a client that dies with the call of this number, counted from 1.
    pub fn new(cluster: &Cluster, dies_at: usize, last_arrives: bool) -> Mortal {
        let (calls, dead) = (Arc::default(), Arc::default());
        Mortal { cluster: cluster.clone(), calls, dies_at, last_arrives, dead }
    }

    pub fn client(&self) -> Client {
        Client::with_net(Arc::new(self.clone()), Config::new([address(1)])).unwrap()
    }

    pub async fn death(&self) {
        poll_fn(|_| match self.dead.load(Ordering::SeqCst) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await
    }

    /// Wakes the executor once, and never returns.
    async fn die<T>(&self) -> T {
        self.dead.store(true, Ordering::SeqCst);
        poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Ready(())
        })
        .await;
        pending().await
    }
}

impl Net for Mortal {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: request::Body,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<response::Body, CallError>> {
        Box::pin(async move {
            let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
            if call >= self.dies_at {
                if call == self.dies_at && self.last_arrives {
                    let _ = self.cluster.call(address, request, timeout).await;
                }
                return self.die().await;
            }
            let answer = self.cluster.call(address, request, timeout).await;
            if self.dead.load(Ordering::SeqCst) {
                return pending().await;
            }
            answer
        })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.cluster.sleep(duration)
    }

    fn now(&self) -> Duration {
        self.cluster.now()
    }

    fn random_below(&self, bound: u64) -> u64 {
        self.cluster.random_below(bound)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.cluster.spawn(Box::pin(WhileAlive { task, dead: self.dead.clone() }));
    }
}

struct WhileAlive {
    task: BoxFuture<'static, ()>,
    dead: Arc<AtomicBool>,
}

impl Future for WhileAlive {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.dead.load(Ordering::SeqCst) {
            true => Poll::Ready(()),
            false => self.task.as_mut().poll(context),
        }
    }
}
