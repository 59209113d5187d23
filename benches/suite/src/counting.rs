//! Statements for one operation, as the server counts them.

use anyhow::Result;

use crate::rounds::Contender;
use crate::server::Server;

/// How many operations are counted: heartbeats and the like vanish among so many.
const OPERATIONS: u32 = 2000;

/// How many statements the server carries out for one operation of the contender.
pub(crate) async fn statements(server: &Server, contender: &mut Contender) -> Result<f64> {
    server.count_statements(true).await?;
    let counted = count(server, contender).await;
    server.count_statements(false).await?;
    counted
}

async fn count(server: &Server, contender: &mut Contender) -> Result<f64> {
    contender.run(1).await?;
    let before = server.statements().await?;
    contender.run(OPERATIONS).await?;
    let after = server.statements().await?;
    #[allow(clippy::cast_precision_loss, reason = "some thousands")]
    let counted = after.saturating_sub(before + server.looking_adds()) as f64;
    Ok(counted / f64::from(OPERATIONS))
}
