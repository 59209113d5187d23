//! The `#[db_locked]` attribute of dlock. Use it through the crate `dlock`, which re-exports it.
//!
//! The way of one expansion: `args` reads what stands in the parentheses, `function` what the
//! attribute stands on; `expand` decides where the lock goes, refuses what cannot be locked, and
//! writes the new body, with `key`, `duration` and `tail_future` for the parts that have rules
//! of their own. `diagnostics` collects the problems, so that all of them are reported at once.

mod args;
mod diagnostics;
mod driven_future;
mod duration;
mod expand;
mod function;
mod impl_block;
mod key;
mod tail_future;

use proc_macro::TokenStream;

/// Runs the body of a function under a lock in the database: while it runs, no other body under the
/// same key runs anywhere.
///
/// ```ignore
/// #[dlock::db_locked(key = "settle/{account.id}", timeout = 10)]
/// async fn settle(account: &Account) -> Result<(), AppError> {
///     account.settle().await
/// }
/// ```
///
/// It goes on functions and methods, sync and async, with whatever generics, receivers and patterns
/// they have; on `main`; on methods of traits that have a body; and inside `#[async_trait]`. The
/// lock is taken when the function is called (async: when its future is first polled) and released when the body has
/// returned, failed, panicked or been dropped. `return` and `?` in the body end the body, not the lock's care.
///
/// # What the function returns
///
/// | event | returned |
/// |---|---|
/// | the body ran | what it returned |
/// | others kept the lock until the time-out | an error, unless [`on_busy`](#on_busy) says otherwise |
/// | no server, no `dlock::init`, a refused statement | an error |
/// | the lock was lost while the body ran | an error; but if the body failed too, its own error |
///
/// The error must have somewhere to go. A function that returns `Result<T, E>` with `E: From<dlock::Error>`
/// (`anyhow::Result`, `io::Result`, your own enum with `#[from] dlock::Error`) has all it needs. For another
/// return type there are three ways: make it such a `Result`, give [`on_error`](#on_error), or implement
/// `dlock::FromLockError` for the type. The compiler points at the return type when none is there.
///
/// # Arguments
///
/// ## `key`
///
/// The name of the lock: a text in which `{parameter}` and `{parameter.field}` are filled in, with a
/// format behind `:` where one is wanted, or any expression that is `Display`.
///
/// ```ignore
/// #[db_locked(key = "report/{tenant}/{user.id}")]
/// #[db_locked(key = "grid/{self.pos.0:03}/{self.pos.1:03}")]
/// #[db_locked(key = format!("{}/{day}", tenant.name()))]
/// #[db_locked(key = keys::NIGHTLY)]
/// ```
///
/// Left out, it is the path of the module and the name of the function, such as `billing::jobs::nightly`. Give
/// a key to whatever matters: moving the function to another module changes the default one, and the old and the
/// new version of the program then no longer exclude each other. Two functions of one name that are nested in
/// functions of one module share a default key.
///
/// A method needs a key, since its type is not visible to the attribute:
///
/// ```compile_fail
/// # use dlock_macros::db_locked;
/// # struct Account;
/// impl Account {
///     #[db_locked] // error: a method needs a key
///     fn settle(&self) {}
/// }
/// ```
///
/// A key has 1 to 1024 bytes and no NUL character. `{}` and `{0}` are errors, since there are no arguments to count.
///
/// ## `timeout`
///
/// How long to wait for the lock: a number is seconds, a text has units (`d`, `h`, `m`, `s`, `ms`, `us`, `ns`), and an
/// expression is a `Duration`, a `u64` of seconds, or an `Option<Duration>`. `0` means one try without waiting.
///
/// ```ignore
/// #[db_locked(key = "k", timeout = 10)]
/// #[db_locked(key = "k", timeout = 2.5)]
/// #[db_locked(key = "k", timeout = "500ms")]
/// #[db_locked(key = "k", timeout = "1m30s")]
/// #[db_locked(key = "k", timeout = self.config.patience)]
/// ```
///
/// Left out, it is the time-out of the configuration, and without one the wait has no limit. A text without a
/// unit is ambiguous and refused:
///
/// ```compile_fail
/// # use dlock_macros::db_locked;
/// #[db_locked(timeout = "10")] // error: ambiguous without a unit
/// fn nightly() {}
/// ```
///
/// ## `mode`
///
/// `exclusive`, the default, or `shared`: any number of shared holders run together, and none of them together with an
/// exclusive one. On a server without shared locks the function returns the error `Unsupported`.
///
/// ```ignore
/// #[db_locked(key = "catalogue", mode = shared)]
/// async fn read_catalogue() -> anyhow::Result<Catalogue> { /* … */ }
/// ```
///
/// ## `on_busy`
///
/// What the function returns when others kept the lock until the time-out, and the body did not run.
///
/// - `error` (default): the error, as any other failure.
/// - `skip`: nothing is wrong, somebody else is doing it. For `()`, `Option<T>` (`None`), a `Result` of these (`Ok`), and
///   types of yours that implement `dlock::Skippable`.
/// - a function or closure, which is given the `dlock::Error` and returns what the function returns.
///
/// ```ignore
/// #[db_locked(key = "cache/{name}", timeout = 0, on_busy = skip)]
/// fn refill(name: &str) -> anyhow::Result<()> { /* … */ }
///
/// #[db_locked(key = "order/{id}", timeout = 3, on_busy = |_| Response::locked())]
/// async fn pay(id: OrderId) -> Response { /* … */ }
/// ```
///
/// ## `on_error`
///
/// Where every failure goes when the return type cannot carry it: `panic`, or a function or closure, which
/// is given the `dlock::Error` and returns what the function returns. Busy goes there too, unless `on_busy` is given.
///
/// ```ignore
/// #[db_locked(key = "order/{id}", on_error = Response::from)]
/// async fn pay(id: OrderId) -> Response { /* … */ }
///
/// #[db_locked(key = "leader", on_error = panic)]
/// fn lead() -> ! { /* … */ }
/// ```
///
/// Handlers of both arguments receive the error alone. They cannot use parameters that the body has taken, which are
/// all but shared references:
///
/// ```compile_fail
/// # use dlock_macros::db_locked;
/// #[db_locked(on_error = |error| drop((error, id)))] // error: the body has taken the parameter `id`
/// async fn pay(id: String) {}
/// ```
///
/// ## `init`
///
/// On `main` only: what to start dlock with before the lock is taken, which is a DSN, a `Config`, or a `Result` of one. If
/// dlock does not start, `main` returns that error.
///
/// ```ignore
/// #[dlock::db_locked(key = "nightly", init = dlock::Config::from_env(), on_busy = skip)]
/// fn main() -> anyhow::Result<()> { /* … */ }
/// ```
///
/// ## `locker`
///
/// A `dlock::Locker` to use in place of the global one. It is borrowed for a moment and cloned.
///
/// ```ignore
/// #[db_locked(key = "settle/{id}", locker = self.locker)]
/// async fn settle(&self, id: u64) -> Result<(), AppError> { /* … */ }
/// ```
///
/// ## `crate`
///
/// The path of dlock, where it is not `::dlock`: a dependency under another name, or a re-export.
///
/// ```ignore
/// #[platform::dlock::db_locked(key = "k", crate = platform::dlock)]
/// ```
///
/// # Beside other attributes
///
/// Put `#[db_locked]` above `#[tokio::main]`, `#[tokio::test]` and their like in other runtimes. Below tokio's it would see a sync function
/// that drives a future, which a lost lock could not stop, and that is an error. `#[test]` and
/// `#[tracing::instrument]` may stand on either side.
///
/// # What is refused
///
/// - **A function that returns a future without being `async`**, unless its whole body is one `async` block, boxed or
///   not; then the lock goes inside. Otherwise only the making of the future would be locked. Return
///   types are known by their names (`impl Future`, `Pin<Box<dyn Future>>`, `BoxFuture`): behind a type alias of another name
///   they are not seen.
///
///   ```compile_fail
///   # use dlock_macros::db_locked;
///   #[db_locked] // error: only its construction would run under the lock
///   fn settle() -> impl Future<Output = ()> {
///       std::future::ready(())
///   }
///   ```
/// - **`const fn`**, which can run in the compiler.
///
///   ```compile_fail
///   # use dlock_macros::db_locked;
///   #[db_locked] // error: remove `const`
///   const fn settle() {}
///   ```
/// - **A second `#[db_locked]`** on one function.
/// - **Anything but a function with a body**: impl blocks, modules, types, closures, and methods that a trait only declares.
/// - **`on_error = panic` on an `extern "C"` function**, where a panic would abort the process.
/// - **Arguments of later versions**: `keys`, `min_hold`, `max_hold`, `ttl`, `on_lost`, `fencing`, `reentrant`.
///
/// # What it expands to
///
/// The signature stays as it is, to the token. The body becomes a closure or a future that runs while the lock is held:
///
/// ```ignore
/// async fn settle(account: &Account) -> Result<(), AppError> {
///     let entry = Entry::new(key(format_args!("settle/{}", account.id))).timeout(Duration::from_secs(10));
///     let body = async move { account.settle().await };
///     let error = match run(entry, body).await {
///         Outcome::Ran(out) => return out,
///         Outcome::Lost(Some(out), _) if out.is_err() => return out,
///         Outcome::Lost(_, error) | Outcome::NotRun(error) => error,
///     };
///     FromLockError::from_lock_error(error)
/// }
/// ```
///
/// Three things follow from that:
///
/// - Parameters that the body uses are dropped while the lock is held. Those that it does not use,
///   and those named `_`, are dropped by the function itself, after the release.
/// - In a sync function with `#[track_caller]`, `Location::caller()` in the body is a place in the body, not the caller's.
/// - The body of an iterator or stream that is returned runs later, without the lock.
#[proc_macro_attribute]
pub fn db_locked(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(args.into(), item.into()).into()
}
