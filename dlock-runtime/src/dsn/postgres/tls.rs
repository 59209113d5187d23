//! `sslmode` and its kin.

use std::path::PathBuf;

use crate::dsn::query::Query;
use crate::dsn::{bad, check_tls};
use crate::error::InitError;
use crate::tls::{Identity, Mode, Roots, Settings};

/// Takes the options of TLS.
pub(super) fn settings(query: &mut Query) -> Result<Settings, InitError> {
    let allowed = "disable, prefer, require, verify-ca or verify-full";
    let mode = query.take_as(&["sslmode"], allowed, |text| match text {
        "disable" => Some(Mode::Disable),
        "prefer" => Some(Mode::Prefer),
        "require" => Some(Mode::Encrypt),
        "verify-ca" => Some(Mode::VerifyChain),
        "verify-full" => Some(Mode::VerifyName),
        _ => None,
    })?;
    let (mode, roots) = match (query.take(&["sslrootcert"])?.as_deref(), mode) {
        (None, mode) => (mode.unwrap_or_default(), Roots::System),
        (Some("system"), None | Some(Mode::VerifyName)) => (Mode::VerifyName, Roots::System),
        (Some("system"), Some(_)) => {
            return Err(bad(
                "option sslrootcert=system of the DSN needs sslmode=verify-full: \
                 every public authority's certificate would pass a weaker one",
            ));
        }
        (Some(path), Some(Mode::Encrypt | Mode::VerifyChain)) => {
            (Mode::VerifyChain, Roots::File(path.into()))
        }
        (Some(path), Some(Mode::VerifyName)) => (Mode::VerifyName, Roots::File(path.into())),
        (Some(_), None | Some(Mode::Disable | Mode::Prefer)) => {
            return Err(bad(
                "option sslrootcert of the DSN has no effect with this sslmode: write sslmode=verify-full or verify-ca too",
            ));
        }
    };
    let identity = match (query.take(&["sslcert"])?, query.take(&["sslkey"])?) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(Identity {
            certificate: PathBuf::from(certificate),
            key: PathBuf::from(key),
        }),
        _ => {
            return Err(bad(
                "options sslcert and sslkey of the DSN belong together: write both",
            ));
        }
    };
    let direct = query.take_as(
        &["sslnegotiation"],
        "postgres or direct",
        |text| match text {
            "postgres" => Some(false),
            "direct" => Some(true),
            _ => None,
        },
    )?;
    let sni = query.take_as(&["sslsni"], "0 or 1", |text| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    })?;
    let settings = Settings {
        mode,
        roots,
        identity,
        direct: direct.unwrap_or(false),
        without_sni: sni == Some(false),
    };
    if settings.direct && matches!(mode, Mode::Disable | Mode::Prefer) {
        return Err(bad(
            "option sslnegotiation=direct of the DSN needs sslmode=require or stronger",
        ));
    }
    check_tls(&settings, "sslmode=disable")?;
    Ok(settings)
}
