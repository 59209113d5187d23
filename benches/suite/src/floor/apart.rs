//! A raw connection on a thread of its own, to which the caller's orders go and from which the answers come.
//!
//! A library that serves callers of any runtime, or of none, has to keep its connections like that. What this costs, two threads that
//! wake each other, is seen by the side of the raw connection in the caller's own task.

use std::thread;

use anyhow::{Context, Result};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use xtask::servers::Kind;

use super::{Raw, raw};

type Order = (Act, String, oneshot::Sender<Result<()>>);

enum Act {
    Wait,
    Unlock,
}

pub(crate) struct Apart(mpsc::UnboundedSender<Order>);

impl Apart {
    pub(crate) async fn open(kind: Kind, url: &str) -> Result<Apart> {
        let (orders, received) = mpsc::unbounded_channel();
        let (opened, open) = oneshot::channel();
        let url = url.to_owned();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::spawn(move || {
            runtime.block_on(async {
                match raw(kind, &url).await {
                    Ok(raw) => {
                        let _ = opened.send(Ok(()));
                        obey(raw, received).await;
                    }
                    Err(error) => {
                        let _ = opened.send(Err(error));
                    }
                }
            });
        });
        open.await??;
        Ok(Apart(orders))
    }

    pub(crate) async fn wait(&self, key: &str) -> Result<()> {
        self.ask(Act::Wait, key).await
    }

    pub(crate) async fn unlock(&self, key: &str) -> Result<()> {
        self.ask(Act::Unlock, key).await
    }

    async fn ask(&self, act: Act, key: &str) -> Result<()> {
        let (answered, answer) = oneshot::channel();
        let sent = self.0.send((act, key.to_owned(), answered));
        sent.ok().context("the thread has ended")?;
        answer.await?
    }
}

async fn obey(mut raw: Raw, mut orders: mpsc::UnboundedReceiver<Order>) {
    while let Some((act, key, answered)) = orders.recv().await {
        let done = match act {
            Act::Wait => raw.wait(&key).await,
            Act::Unlock => raw.unlock(&key).await,
        };
        let _ = answered.send(done);
    }
}
