//! The locker of the process.

use crate::site::Site;

/// `init`, a second `init`, `scope`, `shutdown`, and none of them: in a process of its own, since others would see it.
pub(crate) fn the_locker_of_the_process_is_installed_once(site: &Site) {
    let mut worker = site.worker();
    let key = site.key("global");
    assert_eq!(worker.ask(&format!("globals {key}")), "checked");
}
