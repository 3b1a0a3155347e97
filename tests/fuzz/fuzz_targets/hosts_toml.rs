//! See `berth_fuzz::hosts_toml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| berth_fuzz::hosts_toml(data));
