//! Signatures and bodies of the rarer kinds.

use std::fmt::{Debug, Display};
use std::sync::Arc;

use dlock::db_locked;

use crate::support::{Done, memory};

/// The names that the attribute uses are the user's as well.
#[db_locked(key = "names/{entry}/{out}")]
fn names(entry: u8, out: u8, error: u8, body: u8, held: u8) -> Done<u8> {
    Ok(entry + out + error + body + held)
}

#[db_locked(key = "names/{entry}/{out}")]
async fn names_async(entry: u8, out: u8, error: u8, body: u8, held: u8) -> Done<u8> {
    Ok(entry + out + error + body + held)
}

#[db_locked(key = "generic error")]
fn generic_error<E: From<dlock::Error> + Debug>() -> Result<u8, E> {
    Ok(1)
}

#[db_locked(key = "unsized/{text}")]
fn unsized_parameter<T: Display + ?Sized>(text: &T) -> Done<String> {
    Ok(text.to_string())
}

#[db_locked(key = "lifetimes")]
fn lifetimes<'a, 'b: 'a>(list: &'a mut Vec<&'b str>, text: &'b str) -> Done<&'a mut &'b str> {
    list.push(text);
    let end = list.len() - 1;
    Ok(&mut list[end])
}

#[db_locked(key = "lifetimes")]
async fn lifetimes_async<'a, 'b: 'a>(
    list: &'a mut Vec<&'b str>,
    text: &'b str,
) -> Done<&'a mut &'b str> {
    list.push(text);
    let end = list.len() - 1;
    Ok(&mut list[end])
}

#[db_locked(key = "hidden")]
fn hidden<'a>(
    text: &'a str,
    _by: &str,
) -> Result<impl Iterator<Item = char> + use<'a>, dlock::Error> {
    Ok(text.chars().rev())
}

#[db_locked(key = "hidden")]
async fn hidden_async(text: &str) -> Result<impl Iterator<Item = char> + '_, dlock::Error> {
    Ok(text.chars().rev())
}

#[db_locked(key = "object")]
fn object(value: &mut u8) -> Result<Box<dyn FnMut() -> u8 + '_>, dlock::Error> {
    Ok(Box::new(move || {
        *value += 1;
        *value
    }))
}

#[db_locked(key = "function")]
fn function(call: fn(&str) -> Done<u8>, argument: &str) -> Done<u8> {
    call(argument)
}

#[db_locked(key = "async closure")]
async fn async_closure(call: impl AsyncFn(u8) -> u8) -> Done<u8> {
    Ok(call(1).await + call(2).await)
}

#[db_locked(key = "macros")]
async fn macros(limit: u8) -> Done<u8> {
    let (left, right) = tokio::join!(async { limit }, async { 2 });
    tokio::select! {
        biased;
        () = std::future::ready(()) => Ok(left + right),
        () = std::future::pending() => Ok(0),
    }
}

#[db_locked(key = "unit", on_error = panic)]
async fn explicit_unit(list: &mut Vec<u8>) -> () {
    list.push(1)
}

#[db_locked(key = "diverges")]
fn diverges(now: bool) -> Done<u8> {
    if now {
        return Ok(1);
    }
    unimplemented!("not needed")
}

#[db_locked(key = "loops")]
async fn loops(mut count: u8) -> Done<u8> {
    loop {
        count += 1;
        if count > 5 {
            break Ok(count);
        }
    }
}

/// Deep enough that a copy of the future at each level would show.
#[db_locked(key = "recursive/{depth}")]
async fn recursive(depth: u8) -> Done<u8> {
    if depth == 0 {
        return Ok(0);
    }
    Ok(1 + Box::pin(recursive(depth - 1)).await?)
}

#[db_locked(key = "nested")]
fn nested() -> Done<u8> {
    #[db_locked(key = "nested/inner")]
    fn inner() -> Done<u8> {
        Ok(1)
    }
    inner()
}

struct Node(u8);

trait Visit {
    #[db_locked(key = "sized")]
    fn sized(self) -> Done<u8>
    where
        Self: Sized + Into<u8>,
    {
        Ok(self.into())
    }

    #[db_locked(key = "arc")]
    fn arc(self: &Arc<Self>) -> Done<usize> {
        Ok(Arc::strong_count(self))
    }
}

impl Visit for Node {}

impl From<Node> for u8 {
    fn from(node: Node) -> u8 {
        node.0
    }
}

#[test]
fn the_rarer_kinds_run() {
    memory().scope_sync(|| {
        assert_eq!(names(1, 2, 3, 4, 5).unwrap(), 15);
        assert_eq!(generic_error::<Box<dyn std::error::Error>>().unwrap(), 1);
        assert_eq!(unsized_parameter("x").unwrap(), "x");
        assert_eq!(*lifetimes(&mut vec!["a"], "b").unwrap(), "b");
        assert_eq!(hidden("ab", "x").ok().unwrap().collect::<String>(), "ba");
        assert_eq!(object(&mut 1).unwrap()(), 2);
        assert_eq!(
            function(|text| Ok(u8::from(text.is_empty())), "").unwrap(),
            1
        );
        assert_eq!(diverges(true).unwrap(), 1);
        assert_eq!(nested().unwrap(), 1);
        assert_eq!(Node(7).sized().unwrap(), 7);
        assert_eq!(Arc::new(Node(7)).arc().unwrap(), 1);
    });
    smol::block_on(memory().scope(async {
        assert_eq!(names_async(1, 2, 3, 4, 5).await.unwrap(), 15);
        assert_eq!(*lifetimes_async(&mut vec!["a"], "b").await.unwrap(), "b");
        assert_eq!(
            hidden_async("ab").await.ok().unwrap().collect::<String>(),
            "ba"
        );
        assert_eq!(async_closure(async |n| n).await.unwrap(), 3);
        assert_eq!(macros(1).await.unwrap(), 3);
        let mut list = Vec::new();
        explicit_unit(&mut list).await;
        assert_eq!(list, [1]);
        assert_eq!(loops(0).await.unwrap(), 6);
        assert_eq!(recursive(50).await.unwrap(), 50);
    }));
}
