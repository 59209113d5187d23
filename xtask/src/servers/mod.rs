//! Database servers for tests: private, on loopback, gone afterwards.
//!
//! A server's programs are those that are installed, or else are unpacked (not installed) from the packages of Debian or
//! Ubuntu into the user's cache directory. Its data are a copy of a template that is initialised once per version.
//!
//! - [`Server::start`] gives a test a server of its own, which it may break;
//! - [`up`], [`down`] and [`status`] keep one server of each kind running between commands;
//! - [`Kind::url_variable`] names the environment variable through which tests learn the URL of a server.

mod ask;
mod cluster;
mod kept;
mod kind;
mod launch;
mod packages;
mod place;
mod process;
mod programs;
mod record;
mod server;
mod template;
mod tls;
mod watchdog;

pub use ask::{Row, rows, version};
pub use cluster::Cluster;
pub use kept::{Status, down, status, up};
pub use kind::{DATABASE, Kind, PASSWORD, USER};
pub use server::Server;
pub use tls::Tls;
