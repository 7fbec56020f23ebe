//! Masking (RFC 6455 section 5.3). The same operation masks and unmasks.
//!
//! Plain word arithmetic that the compiler turns into vector instructions; it needs no unsafe
//! code to reach memory speed.

/// Masks or unmasks `data` in place. `offset` is how far into the frame's payload `data` begins.
#[inline(always)]
pub fn apply(key: [u8; 4], offset: usize, data: &mut [u8]) {
    let key = half_at(key, offset);
    // Asked in an order in which the usual sizes come first.
    let len = data.len();
    if len > 32 {
        apply_blocks(key, data);
    } else if len >= 16 {
        apply_halves_of_32(key, data);
    } else if len >= 8 {
        apply_halves_of_16(key, data);
    } else if len >= 4 {
        apply_halves(key, data);
    } else {
        apply_bytes(key, data);
    }
}

/// Appends `src`, masked, to `dst`: how a client copies a payload into its output.
pub fn copy(key: [u8; 4], src: &[u8], dst: &mut Vec<u8>) {
    // A chunk is masked while it is still in the first-level cache. Chunks are a multiple of the
    // key's length, so that each begins with the key unrotated.
    const CHUNK: usize = 4096;
    dst.reserve(src.len());
    for chunk in src.chunks(CHUNK) {
        let start = dst.len();
        dst.extend_from_slice(chunk);
        if let Some(copied) = dst.get_mut(start..) {
            apply(key, 0, copied);
        }
    }
}

/// The key as it applies `by` bytes further on.
#[inline]
pub(crate) fn rotate(key: [u8; 4], by: usize) -> [u8; 4] {
    half_at(key, by).to_le_bytes()
}

/// The same, as a word whose first byte is the lowest.
#[inline]
fn half_at(key: [u8; 4], by: usize) -> u32 {
    // Two bits of `by` matter: the key has four bytes.
    let bytes = u32::try_from(by & 3).unwrap_or(0);
    u32::from_le_bytes(key).rotate_right(8 * bytes)
}

/// The key twice, turned on by `by` bytes.
#[inline]
fn word_at(key: u32, by: usize) -> u64 {
    let half = u64::from(half_at(key.to_le_bytes(), by));
    half << 32 | half
}

#[inline]
fn apply_bytes(key: u32, data: &mut [u8]) {
    for (byte, mask) in data.iter_mut().zip(key.to_le_bytes()) {
        *byte ^= mask;
    }
}

/// Four to seven bytes: two words, of which the second ends at the end and overlaps the first.
/// Both are loaded before either is stored; where they overlap they hold the same result.
#[inline]
fn apply_halves(key: u32, data: &mut [u8]) {
    let tail_key = half_at(key.to_le_bytes(), data.len());
    let tail = data
        .last_chunk()
        .map(|tail| u32::from_le_bytes(*tail) ^ tail_key);
    if let Some(head) = data.first_chunk_mut() {
        *head = (u32::from_le_bytes(*head) ^ key).to_le_bytes();
    }
    if let (Some(place), Some(tail)) = (data.last_chunk_mut(), tail) {
        *place = tail.to_le_bytes();
    }
}

/// 8 to 16 bytes: as `apply_halves`, with halves of 8 bytes.
#[inline]
fn apply_halves_of_16(key: u32, data: &mut [u8]) {
    let tail_key = word_at(key, data.len());
    let tail = data
        .last_chunk()
        .map(|tail| u64::from_le_bytes(*tail) ^ tail_key);
    if let Some(head) = data.first_chunk_mut() {
        *head = (u64::from_le_bytes(*head) ^ word_at(key, 0)).to_le_bytes();
    }
    if let (Some(place), Some(tail)) = (data.last_chunk_mut(), tail) {
        *place = tail.to_le_bytes();
    }
}

/// 16 to 32 bytes: as `apply_halves`, with halves of 16 bytes.
#[inline]
fn apply_halves_of_32(key: u32, data: &mut [u8]) {
    let head_key = twice(word_at(key, 0));
    let tail_key = twice(word_at(key, data.len()));
    let tail = data
        .last_chunk()
        .map(|tail| u128::from_le_bytes(*tail) ^ tail_key);
    if let Some(head) = data.first_chunk_mut() {
        *head = (u128::from_le_bytes(*head) ^ head_key).to_le_bytes();
    }
    if let (Some(place), Some(tail)) = (data.last_chunk_mut(), tail) {
        *place = tail.to_le_bytes();
    }
}

#[inline]
fn twice(word: u64) -> u128 {
    let word = u128::from(word);
    word << 64 | word
}

/// 33 bytes or more: the compiler turns each block into a few vector instructions. Out of line,
/// so that the short cases can be inlined where they are needed.
#[inline(never)]
fn apply_blocks(key: u32, data: &mut [u8]) {
    let keys = [key.to_le_bytes(); PART / 4];
    let mask = keys.as_flattened().try_into().unwrap_or([0; PART]);
    let mut blocks = data.chunks_exact_mut(2 * BLOCK);
    for block in &mut blocks {
        let (first, second) = block.split_at_mut(BLOCK);
        apply_block(&mask, first);
        apply_block(&mask, second);
    }
    let mut last = blocks.into_remainder().chunks_exact_mut(BLOCK);
    for block in &mut last {
        apply_block(&mask, block);
    }
    let mut parts = last.into_remainder().chunks_exact_mut(PART);
    for part in &mut parts {
        apply_part(&mask, part);
    }
    let rest = parts.into_remainder();
    match rest.len() {
        0..4 => apply_bytes(key, rest),
        4..8 => apply_halves(key, rest),
        8..16 => apply_halves_of_16(key, rest),
        _ => apply_halves_of_32(key, rest),
    }
}

/// Four parts, spelled out: the compiler does not always unroll a loop here.
#[inline(always)]
fn apply_block(mask: &[u8; PART], block: &mut [u8]) {
    let (first, second) = block.split_at_mut(2 * PART);
    let ((a, b), (c, d)) = (first.split_at_mut(PART), second.split_at_mut(PART));
    apply_part(mask, a);
    apply_part(mask, b);
    apply_part(mask, c);
    apply_part(mask, d);
}

#[inline(always)]
fn apply_part(mask: &[u8; PART], part: &mut [u8]) {
    if let Some(part) = part.first_chunk_mut::<PART>() {
        for (byte, mask) in part.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

/// What the widest vectors that are usual hold.
const PART: usize = 32;
const BLOCK: usize = 4 * PART;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// RFC 6455 section 5.3, word for word.
    fn naive(key: [u8; 4], offset: usize, data: &[u8]) -> Vec<u8> {
        (offset..)
            .zip(data)
            .map(|(i, byte)| byte ^ key[i % 4])
            .collect()
    }

    fn sample(len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| (i * 7 + i / 256).to_le_bytes()[0])
            .collect()
    }

    #[test]
    fn hello_of_rfc_6455_section_5_7() {
        let mut data = *b"\x7f\x9f\x4d\x51\x58";
        apply(KEY, 0, &mut data);
        assert_eq!(&data, b"Hello");
    }

    #[test]
    fn fr_13_every_length_alignment_and_offset_gives_what_the_rfc_says() {
        let data = sample(300);
        for len in 0..=130 {
            for start in 0..33 {
                for offset in 0..8 {
                    let mut buffer = data.clone();
                    apply(KEY, offset, &mut buffer[start..start + len]);
                    assert_eq!(
                        buffer[start..start + len],
                        naive(KEY, offset, &data[start..start + len])
                    );
                    assert_eq!(
                        buffer[..start],
                        data[..start],
                        "bytes in front were touched"
                    );
                    assert_eq!(
                        buffer[start + len..],
                        data[start + len..],
                        "bytes behind were touched"
                    );
                }
            }
        }
    }

    #[test]
    fn fr_13_pieces_masked_one_after_another_equal_the_whole() {
        let data = sample(100);
        for cut in 0..=data.len() {
            let mut pieces = data.clone();
            let (head, tail) = pieces.split_at_mut(cut);
            apply(KEY, 0, head);
            apply(KEY, cut, tail);
            assert_eq!(pieces, naive(KEY, 0, &data));
        }
    }

    #[test]
    fn copy_appends_the_masked_bytes() {
        for len in [0, 1, 3, 4, 5, 20, 4095, 4096, 4097, 10_000] {
            let data = sample(len);
            let mut out = b"head".to_vec();
            copy(KEY, &data, &mut out);
            assert_eq!(out, [b"head".as_slice(), &naive(KEY, 0, &data)].concat());
        }
    }
}
