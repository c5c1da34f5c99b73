//! Background tasks that outlive the answer to a request: the rest of a commit, a rollback.

use futures::channel::oneshot;
use futures::future::join_all;
use parking_lot::Mutex;

use crate::net::{BoxFuture, SharedNet};

/// Length of the task list at which finished tasks are removed from it.
const NOTED_MAX: usize = 64;

/// Background tasks of the client. Each ends by itself, within seconds.
pub(crate) struct Background {
    net: SharedNet,
    /// One receiver for each task, closed when the task ends.
    running: Mutex<Vec<oneshot::Receiver<()>>>,
}

impl Background {
    pub fn new(net: SharedNet) -> Self {
        Background { net, running: Mutex::default() }
    }

    pub fn spawn(&self, task: BoxFuture<'static, ()>) {
        let (end, ended) = oneshot::channel::<()>();
        let mut running = self.running.lock();
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

    /// Waits for the end of all tasks that were started before.
    pub async fn ended(&self) {
        let running = std::mem::take(&mut *self.running.lock());
        join_all(running).await;
    }
}
