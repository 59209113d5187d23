//! How do the routes of a web service take locks, with state and extractors as they are?
//!
//! ```sh
//! DATABASE_URL=postgres://app@localhost/app cargo run --example axum_routes
//! curl -X POST 'localhost:3000/accounts/7/settle?cents=5' & curl -X POST 'localhost:3000/accounts/7/settle?cents=5'
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;

#[derive(Clone, Default)]
struct App {
    balances: Arc<Mutex<HashMap<u64, u64>>>,
}

impl App {
    fn balance(&self, account: u64) -> u64 {
        let balances = self.balances.lock().unwrap_or_else(PoisonError::into_inner);
        balances.get(&account).copied().unwrap_or_default()
    }

    fn set_balance(&self, account: u64, balance: u64) {
        let mut balances = self.balances.lock().unwrap_or_else(PoisonError::into_inner);
        balances.insert(account, balance);
    }
}

#[derive(serde::Deserialize)]
struct Amount {
    cents: u64,
}

/// An error of the application that knows its status. `#[from]` is all that the attribute needs.
#[derive(Debug, thiserror::Error)]
enum AppError {
    #[error(transparent)]
    Lock(#[from] dlock::Error),
    #[error("an amount of 0 cents settles nothing")]
    Nothing,
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        let status = match &self {
            AppError::Lock(error) if error.is_busy() => StatusCode::LOCKED,
            AppError::Lock(_) => StatusCode::SERVICE_UNAVAILABLE,
            AppError::Nothing => StatusCode::UNPROCESSABLE_ENTITY,
        };
        (status, self.to_string()).into_response()
    }
}

/// The key names what the extractor's pattern binds.
#[dlock::db_locked(key = "settle/{account}", timeout = "2s")]
async fn settle(
    State(app): State<App>,
    Path(account): Path<u64>,
    Query(Amount { cents }): Query<Amount>,
) -> Result<Json<u64>, AppError> {
    if cents == 0 {
        return Err(AppError::Nothing);
    }
    let balance = app.balance(account);
    tokio::time::sleep(Duration::from_millis(50)).await;
    app.set_balance(account, balance + cents);
    Ok(Json(balance + cents))
}

/// Where a lock's failure goes when the handler returns a plain response.
fn unlocked(error: dlock::Error) -> Response {
    AppError::from(error).into_response()
}

#[dlock::db_locked(key = "settle/{account}", timeout = 0, on_error = unlocked)]
async fn show(State(app): State<App>, Path(account): Path<u64>) -> impl IntoResponse {
    format!("account {account}: {} cents\n", app.balance(account)).into_response()
}

fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}", get(show))
        .route("/accounts/{account}/settle", post(settle))
        .with_state(App::default())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    dlock::init_with(dlock::Config::from_env()?)?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, routes()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use dlock::{Config, Locker};
    use tower::ServiceExt;

    use super::*;

    async fn memory() -> Locker {
        let config = Config::from_dsn("memory:").expect("a DSN");
        Locker::connect(config)
            .await
            .expect("memory needs no server")
    }

    async fn call(routes: &Router, method: &str, uri: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .body(Body::empty());
        let response = routes.clone().oneshot(request.expect("a request")).await;
        let (head, body) = response.expect("infallible").into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        (head.status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn requests_for_one_account_come_one_after_the_other() {
        let routes = routes();
        let settle = || call(&routes, "POST", "/accounts/7/settle?cents=5");
        let run = async { tokio::join!(settle(), settle(), settle()) };
        let (first, second, third) = memory().await.scope(run).await;
        // Without the lock each would read the balance before another has written it.
        let mut balances = [first, second, third].map(|(_, balance)| balance);
        balances.sort_by_key(|balance| balance.parse().unwrap_or(0_u64));
        assert_eq!(balances, ["5", "10", "15"]);
    }

    #[tokio::test]
    async fn what_goes_wrong_has_its_status() {
        let locker = memory().await;
        let routes = routes();
        let settle = "/accounts/7/settle?cents=";
        let nothing = locker
            .scope(call(&routes, "POST", &format!("{settle}0")))
            .await;
        assert_eq!(nothing.0, StatusCode::UNPROCESSABLE_ENTITY);
        let guard = locker.lock("settle/7").acquire().await.expect("free");
        let busy = locker
            .scope(call(&routes, "POST", &format!("{settle}5")))
            .await;
        assert_eq!(busy.0, StatusCode::LOCKED);
        let busy = locker.scope(call(&routes, "GET", "/accounts/7")).await;
        assert_eq!(busy.0, StatusCode::LOCKED);
        drop(guard);
        locker.shutdown(Duration::ZERO).await;
        let gone = locker.scope(call(&routes, "GET", "/accounts/7")).await;
        assert_eq!(gone.0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
