//! In place of the Rust peer, where it is not built: `--no-default-features`.

use anyhow::{Result, bail};
use xtask::servers::Kind;

use crate::rounds::Contender;

#[allow(clippy::unused_async, reason = "as with the peer")]
pub(crate) async fn uncontended(_: Kind, _: &str) -> Result<Vec<Contender>> {
    Ok(Vec::new())
}

#[allow(clippy::unused_async, reason = "as with the peer")]
pub(crate) async fn tasks(
    _: Kind,
    _: &str,
    _: u32,
    _: fn(u32) -> String,
) -> Result<Vec<Contender>> {
    Ok(Vec::new())
}

#[allow(clippy::unused_async, reason = "as with the peer")]
pub(crate) async fn wait(_: &str, _: &str) -> Result<u64> {
    bail!("built without the peers")
}

/// There is none.
pub(crate) struct Held(std::convert::Infallible);

impl Held {
    #[allow(clippy::unused_async, reason = "as with the peer")]
    pub(crate) async fn open(_: Kind, _: &str, _: &str) -> Result<Option<Held>> {
        Ok(None)
    }

    #[allow(clippy::unused_async, reason = "as with the peer")]
    pub(crate) async fn around(&self, _: impl Future<Output = Result<()>>) -> Result<u64> {
        match self.0 {}
    }
}
