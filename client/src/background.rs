//! Background tasks that outlive the answer to a request: the rest of a commit, a rollback.

use std::sync::Mutex;

use futures::channel::oneshot;
use futures::future::join_all;

use crate::net::{BoxFuture, SharedNet};

/// Tasks noted before those that have ended are looked for and forgotten.
const NOTED_MAX: usize = 64;

/// Tasks that the client has started and that end by themselves, within seconds.
pub(crate) struct Background {
    net: SharedNet,
    /// Each is closed when its task ends.
    running: Mutex<Vec<oneshot::Receiver<()>>>,
}

impl Background {
    pub fn new(net: SharedNet) -> Self {
        Background { net, running: Mutex::default() }
    }

    pub fn spawn(&self, task: BoxFuture<'static, ()>) {
        let (end, ended) = oneshot::channel::<()>();
        let mut running = self.running.lock().unwrap();
        if running.len() >= NOTED_MAX {
            running.retain_mut(|ended| matches!(ended.try_recv(), Ok(None)));
        }
        running.push(ended);
        drop(running);
        self.net.spawn(Box::pin(async move {
            task.await;
            drop(end);
        }));
    }

    /// Waits for the end of all that was started before.
    pub async fn ended(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap());
        join_all(running).await;
    }
}
