//! Database servers for tests: private, on loopback, gone afterwards.
//!
//! A server's programs are those that are installed, or else are unpacked (not installed) from the packages of Debian or
//! Ubuntu into the user's cache directory. Its data are a copy of a template that is initialised once per version.
//!
//! - [`Server::start`] gives a test a server of its own, which it may break;
//! - [`Setup`] starts other releases, with other settings and clocks; [`Server::standby`] a standby;
//! - [`PgBouncer`] stands before a PostgreSQL, [`Galera`] is a cluster of three nodes, [`FakeClock`] shows a process another time;
//! - [`up`], [`down`] and [`status`] keep one server of each kind running between commands;
//! - [`Kind::url_variable`] names the environment variable through which tests learn the URL of a server.

mod ask;
mod clock;
mod cluster;
mod daemon;
mod galera;
mod kept;
mod kind;
mod launch;
mod packages;
mod pgbouncer;
mod place;
mod process;
mod programs;
mod record;
mod releases;
mod server;
mod setup;
mod standby;
mod template;
mod tls;
mod watchdog;

pub use ask::{Row, rows, value, version};
pub use clock::FakeClock;
pub use cluster::Cluster;
pub use galera::Galera;
pub use kept::{Status, down, status, up};
pub use kind::{DATABASE, Kind, PASSWORD, USER};
pub use pgbouncer::{PgBouncer, Pooling};
pub use releases::Release;
pub use server::Server;
pub use setup::Setup;
pub use tls::Tls;
