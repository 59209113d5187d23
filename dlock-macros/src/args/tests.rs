use std::time::Duration;

use super::*;

fn messages(tokens: TokenStream) -> Vec<String> {
    let mut problems = Problems::default();
    Args::parse(tokens, &mut problems);
    problems.messages()
}

fn parsed(tokens: TokenStream) -> Args {
    let mut problems = Problems::default();
    let args = Args::parse(tokens, &mut problems);
    assert_eq!(problems.messages(), [""; 0]);
    args
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "called with what `quote!` makes"
)]
fn assert_refused(tokens: TokenStream, expected: &str) {
    let found = messages(tokens.clone());
    assert_eq!(found.len(), 1, "{tokens}: {found:#?}");
    assert!(found[0].contains(expected), "{tokens}: {}", found[0]);
}

#[test]
fn every_argument_is_read() {
    let args = parsed(quote!(
        key = "a",
        timeout = 2.5,
        mode = shared,
        min_hold = 1,
        max_hold = "1m",
        ttl = LEASE,
        on_busy = skip,
        on_error = panic,
        on_lost = finish,
        fencing = false,
        reentrant = false,
        init = dsn(),
        locker = &here,
        scheme = shared(),
        crate = a::b
    ));
    let known = |length: Option<Length>| {
        length
            .and_then(|length| length.known())
            .map(|(known, _)| known)
    };
    assert!(matches!(args.keys, Some(Keys::One(Key::Template(_)))));
    assert_eq!(known(args.timeout), Some(Duration::from_millis(2500)));
    assert_eq!(known(args.min_hold), Some(Duration::from_secs(1)));
    assert_eq!(known(args.max_hold), Some(Duration::from_secs(60)));
    assert!(matches!(args.ttl, Some(Length::Expression(_))));
    assert!(args.shared);
    assert!(matches!(args.on_busy, OnBusy::Skip));
    assert!(matches!(args.on_error, OnError::Panic(_)));
    assert!(matches!(args.on_lost, Some(OnLost::Finish)));
    assert_eq!((args.fencing, args.reentrant), (Some(false), Some(false)));
    assert!(args.init.is_some() && args.locker.is_some() && args.scheme.is_some());
    let krate = args.krate.map(|path| quote!(#path).to_string());
    assert_eq!(krate.as_deref(), Some("a :: b"));
}

#[test]
fn nothing_is_needed() {
    assert_eq!(messages(quote!()), [""; 0]);
    assert_eq!(messages(quote!(key = "a",)), [""; 0]);
    assert_eq!(
        messages(quote!(key = f::<A, B>(x, y), on_busy = |_| 1)),
        [""; 0]
    );
    assert!(parsed(quote!(skip)).skip.is_some());
    assert_eq!(parsed(quote!(key = "a", fencing)).fencing, Some(true));
    assert_eq!(parsed(quote!(fencing, key = "a")).fencing, Some(true));
}

#[test]
fn several_keys_are_a_list() {
    let args = parsed(quote!(keys = ["a/{x}", b(), C, "d",]));
    assert_eq!(args.keys.map(|keys| keys.iter().count()), Some(4));
    assert_refused(quote!(keys = []), "at least one key");
    assert_refused(quote!(keys = "a"), "`keys` takes a list");
    assert_refused(quote!(keys = list()), "`key = …` for one key");
    assert_refused(quote!(keys = ["a", "b", "a"]), "\"a\" is in the list twice");
    assert_refused(
        quote!(key = "a", keys = ["b"]),
        "`key` and `keys` are given",
    );
    let found = messages(quote!(keys = ["", "{}", "a"]));
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let found = messages(quote!(
        kye = "a",
        timeout = "10",
        mode = share,
        crate = "dlock",
        ttl = -3,
        on_lost = stop,
        fencing = 1,
        on_busy = "skip"
    ));
    let expected = [
        "unknown argument `kye`: did you mean `key`?",
        "\"10\" is ambiguous",
        "`share` is not a mode: did you mean `shared`?",
        "write `crate = dlock`",
        "cannot be negative",
        "`stop` is not what to do on a loss: there are `cancel`, `finish`",
        "write `true` or `false`",
        "without quotes",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn lengths_that_contradict_are_refused() {
    assert_refused(quote!(max_hold = 0), "`max_hold` must be longer than zero");
    assert_refused(quote!(ttl = "0s"), "`ttl` must be longer than zero");
    assert_refused(
        quote!(min_hold = "1m", max_hold = 59.5),
        "`min_hold` is 60s and `max_hold` is 59.5s",
    );
    assert_eq!(messages(quote!(min_hold = 60, max_hold = "1m")), [""; 0]);
    assert_eq!(messages(quote!(min_hold = LONG, max_hold = 1)), [""; 0]);
    assert_eq!(messages(quote!(min_hold = 0, timeout = 0)), [""; 0]);
}

#[test]
fn skip_stands_alone() {
    assert_refused(quote!(skip, key = "a"), "no other arguments");
    assert_refused(quote!(skip = true), "`skip` takes no value");
}

#[test]
fn forms_that_other_attributes_have_are_corrected() {
    assert_refused(quote!("report"), "write `key = \"report\"`");
    assert_refused(quote!(timeout(10)), "write `timeout = …`");
    assert_refused(quote!(key), "`key` needs a value");
    assert_refused(quote!(reentrant), "`reentrant` needs a value");
    assert_refused(quote!(key = "a" timeout = 1), "expected `,`");
    assert_refused(quote!(key = "a", key = "b"), "given twice");
    assert!(messages(quote!(= 3))[0].contains("expected an argument"));
    assert_eq!(messages(quote!(key = , timeout = 1)).len(), 1);
}
