//! Gives the fuzzer's input to the target `inotify`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::inotify(data));
