fn kept() -> u8 {
    1
}
::core::compile_error! {
    "unknown argument `kye`: did you mean `key`? (there are `key`, `timeout`, `mode`, `on_busy`, `on_error`, `init`, `locker`, `crate`)"
}
::core::compile_error! {
    "\"10\" is ambiguous without a unit: write `10` for seconds, or `\"10ms\"`"
}
