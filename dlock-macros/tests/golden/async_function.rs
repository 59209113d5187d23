#[db_locked(key = "report/{tenant}", on_busy = skip)]
#[instrument]
async fn report(tenant: &str) -> anyhow::Result<()> {
    #![allow(dead_code)]
    write(tenant).await
}
