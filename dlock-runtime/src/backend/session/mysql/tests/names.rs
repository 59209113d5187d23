//! What the servers make of names that are not ours.

use std::collections::HashMap;

use mysql_async::prelude::Queryable;

use super::{Server, on_both, one};
use crate::backend::session::driver::{Driver, Session};
use crate::backend::session::mysql::names::{fold, lock};
use crate::backend::session::mysql::settings::Flavor;
use crate::key::{Mode, ServerKey};
use crate::scheme::KeyScheme;

/// Every letter of the plane that names can have.
fn letters() -> impl Iterator<Item = char> {
    ('\u{1}'..='\u{d7ff}').chain('\u{e000}'..='\u{ffff}')
}

#[test]
fn letters_are_folded_as_mysql_folds_them() {
    on_both(|server| async move {
        if server.flavor == Flavor::MariaDb {
            return;
        }
        let session = server.session().await;
        let letters: Vec<char> = letters().collect();
        for some in letters.chunks(4096) {
            let text: String = some.iter().collect();
            let sql = "SELECT LOWER(CONVERT(? USING utf8mb3) COLLATE utf8mb3_general_ci)";
            let folded: String = session.value(sql, (text,)).await.unwrap().expect("a text");
            for (letter, folded) in some.iter().zip(folded.chars()) {
                assert_eq!(fold(*letter), folded, "{letter:?}");
            }
            assert_eq!(folded.chars().count(), some.len());
        }
    });
}

/// The test above asks a function of the server; this one its locks.
#[test]
fn locks_meet_on_the_server_where_they_meet_in_this_process() {
    on_both(|server| async move {
        let session = server.session().await;
        let special: Vec<char> = letters()
            .filter(|letter| {
                let mut lower = letter.to_lowercase();
                (lower.next(), lower.next()) != (Some(*letter), None)
            })
            .collect();
        assert!(special.len() > 1000);
        let tag = format!("{:x}:", fastrand::u32(..));
        for some in special.chunks(256) {
            // The names as another library would send them.
            let take: Vec<String> = some
                .iter()
                .map(|c| format!("GET_LOCK('{tag}{c}', 0)"))
                .collect();
            let sql = format!("SELECT {}", take.join(" + "));
            one::<i64>(&session, &sql).await;
            let mut own: HashMap<String, char> = HashMap::new();
            for letter in some {
                let ServerKey::Name(name) = lock(&format!("{tag}{letter}"), server.flavor).unwrap()
                else {
                    panic!("a name")
                };
                own.insert(name.to_string(), *letter);
            }
            let asks: Vec<String> = own
                .keys()
                .map(|name| format!("(IS_USED_LOCK('{name}') = CONNECTION_ID())"))
                .collect();
            let sql = format!("SELECT {}", asks.join(" + "));
            let found: i64 = one(&session, &sql).await;
            assert_eq!(
                usize::try_from(found).unwrap(),
                own.len(),
                "{:?}",
                server.flavor
            );
            let released: i64 = one(&session, "SELECT RELEASE_ALL_LOCKS()").await;
            // Each was taken; the first time the sentinel goes too.
            assert!(usize::try_from(released).unwrap() >= some.len());
        }
    });
}

#[test]
fn names_are_cut_at_nul_folded_by_one_and_limited_by_both() {
    on_both(|server| async move {
        let (a, driver) = (server.session().await, server.driver());
        drop(driver.connect().await.unwrap());
        let raw = |name: &str| driver.foreign_key(&name.into(), &KeyScheme::Raw);
        let tag = format!("Ä:{:x}", fastrand::u64(..));
        let upper = tag.to_uppercase();
        let lower = tag.to_lowercase();
        let is_one = server.flavor == Flavor::MySql;
        assert_eq!(raw(&upper) == raw(&lower), is_one);
        assert_eq!(raw(&format!("{tag}\0x")), raw(&tag));
        assert!(
            a.try_lock(&raw(&tag).unwrap(), Mode::Exclusive)
                .await
                .unwrap()
        );
        for (name, busy) in [
            (tag.clone(), true),
            (format!("{tag}\0y"), true),
            (lower, is_one || tag.to_lowercase() == tag),
            (format!("{tag} "), false),
            (tag.replace('Ä', "A"), false),
        ] {
            let other = server.session().await;
            let sql = "SELECT IS_USED_LOCK(?)";
            let holder: Option<u64> = other.value(sql, (name.clone(),)).await.unwrap();
            assert_eq!(holder.is_some(), busy, "{name:?} on {:?}", server.flavor);
        }
        check_limits(server, &raw).await;
    });
}

/// What we refuse the server refuses, and what we take it takes.
async fn check_limits(server: Server, raw: &dyn Fn(&str) -> Result<ServerKey, &'static str>) {
    let tag = format!("{:08x}", fastrand::u32(..));
    for name in [
        String::new(),
        "\0a".to_owned(),
        tag.repeat(8),
        format!("{}x", tag.repeat(8)),
        tag.repeat(24),
        format!("{}x", tag.repeat(24)),
        format!("{tag}{}", "é".repeat(56)),
        format!("{tag}{}", "é".repeat(57)),
        format!("{tag}{}", "é".repeat(92)),
        format!("{tag}{}", "é".repeat(93)),
        format!("{tag}\0{}", "x".repeat(60)),
        format!("{tag}\0{}", "x".repeat(200)),
        format!("{tag}🔒"),
    ] {
        let session = server.session().await;
        let asked = session
            .slot
            .run({
                let name = name.clone();
                move |conn| {
                    Box::pin(async move {
                        conn.exec_first::<Option<i64>, _, _>("SELECT GET_LOCK(?, 0)", (name,))
                            .await
                    })
                }
            })
            .await;
        let taken = matches!(asked, Ok(Some(Some(1))));
        // A name without a first character is taken, and we do not rely on what is locked then.
        if !name.starts_with('\0') {
            assert_eq!(
                raw(&name).is_ok(),
                taken,
                "{name:?} on {:?}: {asked:?}",
                server.flavor
            );
        }
    }
}
