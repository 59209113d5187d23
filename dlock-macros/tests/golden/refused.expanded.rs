fn kept() -> u8 {
    1
}
::core::compile_error! {
    "unknown argument `kye`: did you mean `key`? (there are `key`, `keys`, `timeout`, `mode`, `min_hold`, `max_hold`, `ttl`, `on_busy`, `on_error`, `on_lost`, `fencing`, `reentrant`, `init`, `locker`, `scheme`, `crate`, `skip`)"
}
::core::compile_error! {
    "\"10\" is ambiguous without a unit: write `10` for seconds, or `\"10ms\"`"
}
