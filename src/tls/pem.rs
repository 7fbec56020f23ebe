//! PEM text (RFC 7468): certificates, keys and revocation lists out of it, and what is wrong with it.
//!
//! The only room that names `rustls-pemfile`. That crate skips what it does not know and takes a
//! block that is cut off by the next one for one long block, so the structure is checked here
//! first, where the line is known.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls_pemfile::Item;

use super::error::{InputProblem, PemSource, TlsConfigError};

/// Checked PEM text, and where it came from.
#[derive(Debug)]
pub(crate) struct Pem<'a> {
    source: &'a PemSource,
    bytes: &'a [u8],
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    label: String,
    /// Of its BEGIN, counted from 1.
    line: usize,
    /// From the first byte of its BEGIN line to the last of its END line.
    range: Range<usize>,
    encrypted: bool,
}

impl<'a> Pem<'a> {
    /// Finds the blocks. Text between them is left alone, as RFC 7468 section 2 has it.
    pub(crate) fn new(source: &'a PemSource, bytes: &'a [u8]) -> Result<Self, TlsConfigError> {
        let blocks = blocks(bytes)
            .and_then(|blocks| match bytes.first() {
                None => Err(InputProblem::Empty),
                Some(&first) if blocks.is_empty() => Err(InputProblem::NotPem {
                    der: first == DER_SEQUENCE,
                }),
                Some(_) => Ok(blocks),
            })
            .map_err(|problem| TlsConfigError::input(source, problem))?;
        Ok(Self {
            source,
            bytes,
            blocks,
        })
    }

    /// All certificates, at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
        let certificates = self.items(|item| match item {
            Item::X509Certificate(certificate) => Some(certificate),
            _ => None,
        })?;
        if certificates.is_empty() {
            let found = self.labels();
            return Err(self.error(InputProblem::NoCertificate { found }));
        }
        Ok(certificates)
    }

    /// The private key, of which there must be one: PKCS#8, SEC1 (RFC 5915) or PKCS#1.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
        if self.blocks.iter().any(|block| block.encrypted) {
            return Err(self.error(InputProblem::EncryptedKey));
        }
        let mut keys = self.items(|item| match item {
            Item::Pkcs1Key(key) => Some(key.into()),
            Item::Pkcs8Key(key) => Some(key.into()),
            Item::Sec1Key(key) => Some(key.into()),
            _ => None,
        })?;
        match (keys.pop(), keys.len()) {
            (Some(key), 0) => Ok(key),
            (Some(_), others) => Err(self.error(InputProblem::SeveralKeys { keys: others + 1 })),
            (None, _) => {
                let found = self.labels();
                Err(self.error(InputProblem::NoKey { found }))
            }
        }
    }

    /// All revocation lists, at least one.
    pub(crate) fn revocation_lists(
        &self,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsConfigError> {
        let lists = self.items(|item| match item {
            Item::Crl(list) => Some(list),
            _ => None,
        })?;
        if lists.is_empty() {
            let found = self.labels();
            return Err(self.error(InputProblem::NoRevocationList { found }));
        }
        Ok(lists)
    }

    fn items<T>(&self, pick: impl Fn(Item) -> Option<T>) -> Result<Vec<T>, TlsConfigError> {
        let mut picked = Vec::new();
        for block in self.blocks.iter().filter(|block| !block.encrypted) {
            let text = self.bytes.get(block.range.clone()).unwrap_or_default();
            match rustls_pemfile::read_one_from_slice(text) {
                Ok(Some((item, _))) => picked.extend(pick(item)),
                Ok(None) => {} // a block of another kind
                Err(_) => return Err(self.error(block.malformed("its text is not base64"))),
            }
        }
        Ok(picked)
    }

    /// What there is, each kind once.
    fn labels(&self) -> String {
        let mut labels: Vec<&str> = Vec::new();
        for block in &self.blocks {
            if !labels.contains(&block.label.as_str()) {
                labels.push(&block.label);
            }
        }
        labels.join(", ")
    }

    fn error(&self, problem: InputProblem) -> TlsConfigError {
        TlsConfigError::input(self.source, problem)
    }
}

impl Block {
    fn malformed(&self, reason: &str) -> InputProblem {
        InputProblem::Malformed {
            label: self.label.clone(),
            line: self.line,
            reason: reason.to_owned(),
        }
    }

    fn cut(&self) -> InputProblem {
        InputProblem::Cut {
            label: self.label.clone(),
            line: self.line,
        }
    }
}

/// Reads a whole file, of at most so many bytes.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, InputProblem> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(InputProblem::TooLong { limit });
    }
    Ok(bytes)
}

/// [`read_file`] for those who keep the outcome of reading apart from that of understanding.
pub(crate) fn read_file_io(path: &Path) -> io::Result<Vec<u8>> {
    match read_file(path, FILE_BYTES_MAX) {
        Ok(bytes) => Ok(bytes),
        Err(InputProblem::Unreadable(error)) => Err(error),
        Err(InputProblem::Missing) => Err(io::ErrorKind::NotFound.into()),
        Err(other) => Err(io::Error::new(io::ErrorKind::InvalidData, other)),
    }
}

/// A certificate chain or a key of more than 1 MiB is a mistaken path.
pub(crate) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Bundles of roots, and revocation lists, grow to many megabytes.
pub(crate) const BUNDLE_BYTES_MAX: u64 = 256 * 1024 * 1024;

fn blocks(bytes: &[u8]) -> Result<Vec<Block>, InputProblem> {
    let mut done = Vec::new();
    let mut open: Option<Block> = None;
    let mut start = if bytes.starts_with(BYTE_ORDER_MARK) {
        BYTE_ORDER_MARK.len()
    } else {
        0
    };
    let text = bytes.get(start..).unwrap_or_default();
    for (line, row) in (1..).zip(text.split_inclusive(|&byte| byte == b'\n')) {
        let end = start + row.len();
        let row = row.trim_ascii_end();
        if row.starts_with(BEGIN) {
            if let Some(block) = open {
                return Err(block.cut());
            }
            open = Some(begin(row, line, start)?);
        } else if let Some(block) = &mut open {
            if row.starts_with(ENCRYPTED_HEADER) {
                block.encrypted = true;
            } else if row.starts_with(DASHES) {
                check_end(block, row)?;
                block.range.end = end;
                done.extend(open.take());
            }
        }
        start = end;
    }
    match open {
        Some(block) => Err(block.cut()),
        None => Ok(done),
    }
}

fn begin(row: &[u8], line: usize, start: usize) -> Result<Block, InputProblem> {
    let label = row.strip_prefix(BEGIN).unwrap_or_default();
    let complete = label.strip_suffix(DASHES);
    let label = String::from_utf8_lossy(complete.unwrap_or(label)).into_owned();
    let block = Block {
        encrypted: label == "ENCRYPTED PRIVATE KEY",
        label,
        line,
        range: start..start,
    };
    match complete {
        Some(_) => Ok(block),
        None => Err(block.malformed("its BEGIN line does not end in five dashes")),
    }
}

/// A line of dashes inside a block ends it, or the block is broken.
fn check_end(block: &Block, row: &[u8]) -> Result<(), InputProblem> {
    let expected = format!("-----END {}-----", block.label);
    if row == expected.as_bytes() {
        Ok(())
    } else if expected.as_bytes().starts_with(row) {
        Err(block.cut())
    } else {
        let found = String::from_utf8_lossy(row).into_owned();
        Err(block.malformed(&format!("it is ended by {found:?}")))
    }
}

const BEGIN: &[u8] = b"-----BEGIN ";
const DASHES: &[u8] = b"-----";
/// RFC 1421 section 4.6.1.1, as OpenSSL writes it into keys of the traditional form.
const ENCRYPTED_HEADER: &[u8] = b"Proc-Type: 4,ENCRYPTED";
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const DER_SEQUENCE: u8 = 0x30;

#[cfg(test)]
mod tests {
    use super::super::testpki::{self, Pki};
    use super::*;

    const SOURCE: PemSource = PemSource::Memory;

    fn certificates(text: impl AsRef<[u8]>) -> Result<usize, String> {
        Pem::new(&SOURCE, text.as_ref())
            .and_then(|pem| pem.certificates())
            .map(|certificates| certificates.len())
            .map_err(|error| error.to_string())
    }

    fn key(text: impl AsRef<[u8]>) -> Result<PrivateKeyDer<'static>, String> {
        Pem::new(&SOURCE, text.as_ref())
            .and_then(|pem| pem.private_key())
            .map_err(|error| error.to_string())
    }

    /// The text of an error about PEM text from memory.
    fn refused(text: &str) -> String {
        format!("PEM text from memory: {text}")
    }

    #[test]
    fn text_around_blocks_and_foreign_blocks_are_skipped() {
        let leaf = Pki::new("ca").leaf(&["a.test"]).issue();
        let (chain, key_pem) = (leaf.chain_pem(), leaf.key_pem());
        let parameters =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        let all = format!("subject=a\n{chain}\nBag Attributes\n\n{parameters}{key_pem}trailing");
        assert_eq!(certificates(&all), Ok(1));
        assert!(matches!(key(&all), Ok(PrivateKeyDer::Pkcs8(_))));
    }

    #[test]
    fn line_ends_blanks_and_a_byte_order_mark_do_not_matter() {
        let pki = Pki::new("ca");
        let pem = pki.leaf(&["a.test"]).issue().chain_pem() + &pki.ca_pem();
        assert_eq!(certificates(pem.replace('\n', "\r\n")), Ok(2));
        assert_eq!(certificates(pem.replace('\n', " \n")), Ok(2));
        assert_eq!(certificates(format!("\u{feff}{pem}")), Ok(2));
        assert_eq!(certificates(pem.trim_end()), Ok(2));
    }

    #[test]
    fn the_three_forms_of_keys_are_read() {
        let pkcs8 = Pki::new("ca").leaf(&["a.test"]).issue().key_pem();
        assert!(matches!(key(pkcs8), Ok(PrivateKeyDer::Pkcs8(_))));
        assert!(matches!(
            key(testpki::RSA_PKCS1_KEY),
            Ok(PrivateKeyDer::Pkcs1(_))
        ));
        assert!(matches!(
            key(testpki::EC_SEC1_KEY),
            Ok(PrivateKeyDer::Sec1(_))
        ));
    }

    #[test]
    fn what_is_no_pem_text_is_told_apart() {
        let pki = Pki::new("ca");
        let not_pem = refused("this is not PEM text: no line begins with \"-----BEGIN \"");
        assert_eq!(certificates(""), Err(refused("the file is empty")));
        assert_eq!(certificates("hello\n"), Err(not_pem.clone()));
        assert_eq!(certificates([0, 1, 2, 0xff]), Err(not_pem));
        let der = refused(
            "this is binary DER; PEM text is needed, for instance from \
             `openssl x509 -inform der -in FILE -out FILE.pem`",
        );
        assert_eq!(certificates(pki.ca_der()), Err(der));
    }

    #[test]
    fn a_file_with_the_wrong_things_says_which() {
        let pki = Pki::new("ca");
        let leaf = pki.leaf(&["a.test"]).issue();
        assert_eq!(
            certificates(leaf.key_pem()),
            Err(refused("there is no certificate in it, only PRIVATE KEY"))
        );
        let found = key(leaf.chain_pem() + &pki.ca_pem() + &pki.crl_pem(&[])).unwrap_err();
        let text = "there is no private key in it, only CERTIFICATE, X509 CRL";
        assert_eq!(found, refused(text));
        let lists = Pem::new(&SOURCE, leaf.chain_pem().as_bytes())
            .unwrap()
            .revocation_lists();
        let text = "there is no certificate revocation list in it, only CERTIFICATE";
        assert_eq!(lists.unwrap_err().to_string(), refused(text));
    }

    #[test]
    fn an_encrypted_key_is_called_so_in_both_its_forms() {
        let expected = refused(
            "the private key is encrypted, and there is no way to ask for a passphrase here; \
             decrypt it first, for instance with `openssl pkey -in KEY -out PLAIN_KEY`",
        );
        let modern =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(key(modern).unwrap_err(), expected);
        let traditional = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
             DEK-Info: AES-256-CBC,00\n\nMIIB\n-----END RSA PRIVATE KEY-----\n";
        assert_eq!(key(traditional).unwrap_err(), expected);
    }

    #[test]
    fn several_keys_are_refused() {
        let pki = Pki::new("ca");
        let two =
            pki.leaf(&["a.test"]).issue().key_pem() + &pki.leaf(&["b.test"]).issue().key_pem();
        let text = "there are 2 private keys in it; exactly one is needed";
        assert_eq!(key(two).unwrap_err(), refused(text));
    }

    #[test]
    fn every_truncation_of_a_file_with_two_certificates_is_noticed_or_whole() {
        let pki = Pki::new("ca");
        let (first, second) = (pki.leaf(&["a.test"]).issue().chain_pem(), pki.ca_pem());
        let first_lines = first.lines().count();
        let pem = first.clone() + &second;
        let end_of_first = first.trim_end().len();
        for len in 0..pem.trim_end().len() {
            let Err(error) = certificates(&pem[..len]) else {
                // Between the blocks nothing shows that another was to come.
                assert!(
                    (end_of_first..=first.len() + BEGIN.len()).contains(&len),
                    "{len}"
                );
                continue;
            };
            let line = if len < end_of_first {
                1
            } else {
                first_lines + 1
            };
            let begin = format!("in line {line}");
            let early = len <= BEGIN.len();
            assert!(early || error.contains(&begin), "{len}: {error}");
        }
    }

    #[test]
    fn a_block_without_end_before_the_next_one_is_not_joined_with_it() {
        let pki = Pki::new("ca");
        let leaf = pki.leaf(&["a.test"]).issue().chain_pem();
        let cut = leaf.replace("-----END CERTIFICATE-----\n", "") + &pki.ca_pem();
        let text = "the block \"CERTIFICATE\" that begins in line 1 does not end; is the file half written?";
        assert_eq!(certificates(cut), Err(refused(text)));
    }

    #[test]
    fn malformed_blocks_are_named_with_their_line() {
        let begin = "-----BEGIN CERTIFICATE-----\n";
        let end = "-----END CERTIFICATE-----\n";
        for (pem, reason) in [
            (
                format!("{begin}not*base64\n{end}"),
                "its text is not base64",
            ),
            (format!("{begin}MIIBB\n{end}"), "its text is not base64"),
            (
                format!("{begin}MIIB\n-----END PRIVATE KEY-----\n"),
                "it is ended by \"-----END PRIVATE KEY-----\"",
            ),
            (
                format!("-----BEGIN CERTIFICATE--\nMIIB\n{end}"),
                "its BEGIN line does not end in five dashes",
            ),
        ] {
            let error = certificates(format!("# a comment\n\n{pem}")).unwrap_err();
            assert!(error.ends_with(reason), "{error}");
            assert!(error.contains("in line 3 is malformed"), "{error}");
        }
    }
}
