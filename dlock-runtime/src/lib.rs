//! The runtime of dlock. Use it through the crate `dlock`, whose documentation starts at the beginning.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod config;
mod dsn;
mod endpoint;
mod error;
mod key;
mod timeout;
mod tls;

pub use config::Config;
pub use error::{
    Busy, Error, Holder, InitError, InvalidKey, Lost, Refused, Unavailable, Unsupported,
};
pub use key::Mode;
pub use timeout::Timeout;
