#![expect(
    clippy::cast_possible_truncation,
    reason = "what is cut here fails the test"
)]

use super::*;
use crate::ws::deflate::Takeover;

fn compressing(takeover: Takeover, bits: u8, level: u8) -> Compressing {
    let config = DeflateConfig::new().context_takeover(takeover);
    let config = config.level(level).unwrap();
    let params = DeflateParams {
        server_no_context_takeover: !takeover.of_server(),
        client_no_context_takeover: !takeover.of_client(),
        server_max_window_bits: bits,
        client_max_window_bits: 15,
    };
    Compressing::new(Side::Server, params, config)
}

/// RFC 1951 read literally, with a window of so many bits and no more.
struct Reader {
    window: usize,
    out: Vec<u8>,
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<usize> {
        let mut value = 0;
        for bit in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value |= usize::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(value)
    }

    /// Section 3.2.2: codes are ordered by length, then by symbol.
    fn symbol(&mut self, lengths: &[usize]) -> Option<usize> {
        let (mut code, mut first) = (0, 0);
        for len in 1..=15 {
            code |= self.take(1)?;
            let of_len = lengths.iter().filter(|&&other| other == len).count();
            if code < first + of_len {
                let mut sorted = (0..lengths.len()).filter(|&symbol| lengths[symbol] == len);
                return sorted.nth(code - first);
            }
            first = (first + of_len) << 1;
            code <<= 1;
        }
        None
    }
}

impl Reader {
    fn new(bits: u8) -> Self {
        Self {
            window: 1 << bits,
            out: Vec::new(),
        }
    }

    fn read(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let before = self.out.len();
        let mut whole = payload.to_vec();
        whole.extend_from_slice(&TAIL);
        let mut bits = Bits {
            bytes: &whole,
            at: 0,
        };
        while bits.at < whole.len() * 8 {
            assert_eq!(bits.take(1)?, 0, "no block is the final one");
            match bits.take(2)? {
                0 => self.stored(&mut bits)?,
                1 => {
                    let lengths = |symbol| match symbol {
                        0..144 => 8,
                        144..256 => 9,
                        256..280 => 7,
                        _ => 8,
                    };
                    let lengths: Vec<_> = (0..288).map(lengths).collect();
                    self.block(&mut bits, &lengths, &[5; 30])?;
                }
                2 => {
                    let (literals, distances) = Self::dynamic(&mut bits)?;
                    self.block(&mut bits, &literals, &distances)?;
                }
                _ => return None,
            }
        }
        Some(self.out[before..].to_vec())
    }

    fn stored(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        bits.at = bits.at.next_multiple_of(8);
        let len = bits.take(16)?;
        (bits.take(16)? == len ^ 0xffff).then_some(())?;
        for _ in 0..len {
            self.out.push(bits.take(8)? as u8);
        }
        Some(())
    }

    fn dynamic(bits: &mut Bits<'_>) -> Option<(Vec<usize>, Vec<usize>)> {
        let (literals, distances) = (bits.take(5)? + 257, bits.take(5)? + 1);
        let count = bits.take(4)? + 4;
        let mut codes = [0; 19];
        let order = [
            16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
        ];
        for symbol in &order[..count] {
            codes[*symbol] = bits.take(3)?;
        }
        let mut lengths = Vec::new();
        while lengths.len() < literals + distances {
            let (value, repeat) = match bits.symbol(&codes)? {
                16 => (*lengths.last()?, 3 + bits.take(2)?),
                17 => (0, 3 + bits.take(3)?),
                18 => (0, 11 + bits.take(7)?),
                len => (len, 1),
            };
            lengths.extend(std::iter::repeat_n(value, repeat));
        }
        let distances = lengths.split_off(literals);
        Some((lengths, distances))
    }

    fn block(
        &mut self,
        bits: &mut Bits<'_>,
        literals: &[usize],
        distances: &[usize],
    ) -> Option<()> {
        loop {
            let symbol = bits.symbol(literals)?;
            let len = match symbol {
                0..256 => {
                    self.out.push(symbol as u8);
                    continue;
                }
                256 => return Some(()),
                257..265 => symbol - 254,
                285 => 258,
                _ => {
                    let extra = (symbol - 261) / 4;
                    ((4 + (symbol - 261) % 4) << extra) + 3 + bits.take(extra)?
                }
            };
            let code = bits.symbol(distances)?;
            let distance = match code {
                0..4 => code + 1,
                _ => {
                    let extra = code / 2 - 1;
                    ((2 + code % 2) << extra) + 1 + bits.take(extra)?
                }
            };
            if distance > self.window {
                return None;
            }
            for _ in 0..len {
                let at = self.out.len().checked_sub(distance)?;
                self.out.push(self.out[at]);
            }
        }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// What repeats itself at all distances.
    fn sample(&mut self, len: usize) -> Vec<u8> {
        let mut data: Vec<u8> = Vec::new();
        while data.len() < len {
            let back = 1 + self.next() as usize % 2000;
            let run = 3 + self.next() as usize % 300;
            for _ in 0..run {
                let byte = match data.len().checked_sub(back) {
                    Some(at) => data[at],
                    None => b'a' + self.next() as u8 % 8,
                };
                data.push(byte);
            }
        }
        data.truncate(len);
        data
    }
}

#[test]
fn pm_02_what_is_compressed_for_a_window_is_read_with_that_window() {
    let mut random = Random(0x5eed_0010);
    for bits in 8..=15 {
        for level in 1..=9 {
            for takeover in [Takeover::None, Takeover::Both] {
                let mut pool = CompressorPool::default();
                let mut sender = compressing(takeover, bits, level);
                let mut reader = Reader::new(bits);
                for len in [1000, 300, 5000] {
                    let data = random.sample(len);
                    let options = SendOptions::new();
                    let payload = sender.compress(&mut pool, &data, options).unwrap();
                    assert!(payload.as_slice().len() < len);
                    if takeover == Takeover::None {
                        reader = Reader::new(bits);
                    }
                    let read = reader.read(payload.as_slice());
                    assert!(read.as_ref() == Some(&data), "{bits} {level}");
                    pool.put_back(payload);
                }
            }
        }
    }
}

#[test]
fn a_reader_with_a_smaller_window_notices() {
    // The test above would see a distance that is too long.
    let data = Random(0x5eed_0011).sample(20_000);
    for bits in 8..11 {
        let mut pool = CompressorPool::default();
        let mut sender = compressing(Takeover::None, bits + 2, 9);
        let payload = sender.compress(&mut pool, &data, SendOptions::new());
        let payload = payload.unwrap();
        let read = Reader::new(bits).read(payload.as_slice());
        assert!(read.is_none(), "{bits}");
    }
}

#[test]
fn short_messages_go_as_they_are_unless_the_caller_says_otherwise() {
    let mut pool = CompressorPool::default();
    let text = "a".repeat(DeflateConfig::new().threshold);
    let options = SendOptions::new();
    for takeover in [Takeover::None, Takeover::Both] {
        let mut sender = compressing(takeover, 15, 1);
        let mut compress = |text: &str, options| {
            let payload = sender.compress(&mut pool, text.as_bytes(), options)?;
            let len = payload.as_slice().len();
            pool.put_back(payload);
            Some(len)
        };
        assert!(compress(&text, options).is_some());
        assert_eq!(compress(&text[1..], options), None);
        assert!(compress(&text[1..], options.compression(Compression::Always)).is_some());
        assert_eq!(
            compress(&text, options.compression(Compression::Never)),
            None
        );
        assert_eq!(
            compress("", options.compression(Compression::Always)),
            Some(1)
        );
    }
}

#[test]
fn what_does_not_shrink_goes_as_it_is_where_no_window_has_to_agree() {
    let mut random = Random(0x5eed_0012);
    let noise: Vec<u8> = (0..10_000).map(|_| random.next() as u8).collect();
    let mut pool = CompressorPool::default();
    let mut alone = compressing(Takeover::None, 15, 6);
    assert!(
        alone
            .compress(&mut pool, &noise, SendOptions::new())
            .is_none()
    );
    let mut sender = compressing(Takeover::Both, 15, 6);
    let mut reader = Reader::new(15);
    for _ in 0..3 {
        let payload = sender.compress(&mut pool, &noise, SendOptions::new());
        let payload = payload.unwrap();
        assert!(reader.read(payload.as_slice()).as_ref() == Some(&noise));
        pool.put_back(payload);
    }
}

#[test]
fn fragments_of_all_sizes_are_one_stream() {
    let mut random = Random(0x5eed_0013);
    let mut pool = CompressorPool::default();
    let mut sender = compressing(Takeover::Both, 15, 6);
    let mut reader = Reader::new(15);
    for _ in 0..50 {
        let data = random.sample(1 + random.0 as usize % 3000);
        let mut rest = data.as_slice();
        let (mut whole, mut first) = (Vec::new(), true);
        while !rest.is_empty() {
            // Empty ones, too.
            let len = (random.next() as usize % 700)
                .saturating_sub(100)
                .min(rest.len());
            let (piece, tail) = rest.split_at(len);
            rest = tail;
            let last = rest.is_empty() && random.next() % 2 == 0;
            let payload = sender
                .compress_fragment(&mut pool, piece, first, last)
                .unwrap();
            whole.extend_from_slice(payload.as_slice());
            pool.put_back(payload);
            first = last;
        }
        if !first {
            let payload = sender
                .compress_fragment(&mut pool, b"", false, true)
                .unwrap();
            whole.extend_from_slice(payload.as_slice());
            pool.put_back(payload);
        }
        assert!(reader.read(&whole) == Some(data));
    }
    let mut alone = compressing(Takeover::None, 15, 6);
    assert!(
        alone
            .compress_fragment(&mut pool, b"aaaaaaaa", true, false)
            .is_none()
    );
    assert!(
        alone
            .compress_fragment(&mut pool, b"aaaaaaaa", false, true)
            .is_none()
    );
}

#[test]
fn stored_blocks_are_read_as_what_they_hold() {
    let data = Random(0x5eed_0014).sample(150_000);
    for len in [0, 1, 65_535, 65_536, 150_000] {
        let mut out = Vec::new();
        let used = store(&data[..len], TAIL.len(), &mut out);
        let read = Reader::new(15).read(&out[..used]);
        assert!(read.as_deref() == Some(&data[..len]));
    }
}

#[test]
fn connections_share_compressors_and_few_are_kept() {
    let mut pool = CompressorPool::default();
    for bits in 9..=15 {
        for level in [1, 6] {
            let mut sender = compressing(Takeover::None, bits, level);
            let own = sender.memory();
            let payload = sender.compress(&mut pool, &[7; 1000], SendOptions::new());
            pool.put_back(payload.unwrap());
            assert_eq!(sender.memory(), own);
        }
    }
    assert!(pool.shared.len() == MAX_SHARED && pool.memory() < MAX_SHARED * 400 * 1024);
}
