//! The name of this program: what a database administrator sees beside a session.

use std::path::Path;

/// PostgreSQL cuts names at 63 bytes.
const MAX_BYTES: usize = 63;
/// So that a long name leaves room for the process id, which tells two copies apart.
const MAX_PROGRAM_BYTES: usize = 32;

/// `<program> pid <pid> on <host>`.
pub(super) fn default_name() -> String {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_name);
    let program = program.map_or_else(|| "dlock".into(), |name| name.to_string_lossy());
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    name(&program, std::process::id(), &host)
}

/// Host, process id and a random part: two processes never share it, also not in two containers of the same name.
pub(super) fn default_owner() -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let plain: String = cut_at(&host, MAX_BYTES)
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\') {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!(
        "{plain} pid {} {:08x}",
        std::process::id(),
        fastrand::u32(..)
    )
}

fn name(program: &str, pid: u32, host: &str) -> String {
    let program = cut_at(program, MAX_PROGRAM_BYTES);
    cut(&format!("{program} pid {pid} on {host}")).to_owned()
}

/// Cuts a name to what every server shows.
pub(super) fn cut(name: &str) -> &str {
    cut_at(name, MAX_BYTES)
}

fn cut_at(text: &str, bytes: usize) -> &str {
    let end = text
        .char_indices()
        .map(|(start, character)| start + character.len_utf8())
        .take_while(|end| *end <= bytes)
        .last()
        .unwrap_or(0);
    text.get(..end).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_program_or_host_keeps_the_process_id() {
        let long = "é".repeat(100);
        let name = name(&long, u32::MAX, &long);
        assert!(name.len() <= 63, "{name}");
        assert!(
            name.starts_with(&"é".repeat(16)) && name.contains(" pid 4294967295 on é"),
            "{name}"
        );
    }

    #[test]
    fn the_default_names_this_process() {
        let name = default_name();
        assert!(
            name.contains(&format!(" pid {} on ", std::process::id())),
            "{name}"
        );
    }
}
