//! JSON-like texts that resemble each other as those of one application do.
#![allow(unreachable_pub, reason = "a part of several benches")]

/// How many there are.
pub const MESSAGES: usize = 64;

/// Texts of that length.
pub fn messages(len: usize) -> Vec<Vec<u8>> {
    let mut random = 0x5eed_0020_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    (0..MESSAGES)
        .map(|id| {
            let mut text = format!("{{\"id\":{id},\"readings\":[");
            while text.len() < len {
                let (sensor, value, at) = (next() % 1000, next() % 100_000, next() % 86_400);
                text.push_str(&format!(
                    "{{\"sensor\":\"s{sensor}\",\"value\":{}.{:02},\"unit\":\"C\",\"at\":{at},\"ok\":true}},",
                    value / 100,
                    value % 100
                ));
            }
            text.truncate(len);
            text.into_bytes()
        })
        .collect()
}
