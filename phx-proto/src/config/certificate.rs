//! A reader of PEM files and certificates for error messages.
//!
//! Only webpki decides about trust. This module explains why a file cannot be used.

/// Explains why a text does not contain a usable PEM item of the kind `wanted`.
pub(super) fn pem_problem(text: &[u8], wanted: &str, file: &str) -> Option<String> {
    let has = |needle: &str| text.windows(needle.len()).any(|part| part == needle.as_bytes());
    let begins = |label: &str| has(&format!("-----BEGIN {label}-----"));
    if matches!(text, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return Some("it is UTF-16 text: save it as UTF-8 or ASCII".to_owned());
    }
    if begins("ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
        return Some(format!(
            "it is encrypted, and phx does not ask for a passphrase: decrypt it with \
             `openssl pkey -in {file} -out {file}.plain`"
        ));
    }
    if text.first() == Some(&0x30) {
        return Some(format!(
            "it is DER or PKCS#12, not PEM: convert it with `openssl {} -in {file} -inform DER -out \
             {file}.pem` or `openssl pkcs12 -in {file} -nodes -out {file}.pem`",
            if wanted == "certificate" { "x509" } else { "pkey" },
        ));
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Some("it is empty".to_owned());
    }
    let found = [
        ("CERTIFICATE", "a certificate"),
        ("CERTIFICATE REQUEST", "a certificate request (an authority has to sign it first)"),
        ("PRIVATE KEY", "a private key"),
        ("RSA PRIVATE KEY", "a private key"),
        ("EC PRIVATE KEY", "a private key"),
        ("PUBLIC KEY", "a public key"),
        ("TRUSTED CERTIFICATE", "a certificate in a format that only OpenSSL reads"),
        ("OPENSSH PRIVATE KEY", "an OpenSSH key"),
    ];
    let found = found.into_iter().find(|(label, _)| begins(label));
    found.map(|(_, what)| format!("it contains {what}, but no {wanted}"))
}

/// Strips the byte order mark that some editors write at the start of a text.
pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Facts about a certificate for an error message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The X.509 version, 1 or 3.
    pub(super) version: u8,
    /// The common name of the subject, escaped.
    pub(super) common_name: Option<String>,
}

/// Reads the version and the subject of a certificate (RFC 5280 section 4.1).
pub(super) fn facts(der: &[u8]) -> Option<Facts> {
    let (_, certificate, _) = element(der)?;
    let (_, body, _) = element(certificate)?;
    let (tag, first, after) = element(body)?;
    // The version is `[0] EXPLICIT INTEGER`, which is absent for version 1, the default.
    let (version, rest) = match tag {
        0xa0 => (element(first)?.1.last()?.checked_add(1)?, after),
        _ => (1, body),
    };
    let mut rest = rest;
    // Skips the serial number, the algorithm, the issuer and the validity.
    for _ in 0..4 {
        rest = element(rest)?.2;
    }
    let (_, subject, _) = element(rest)?;
    Some(Facts { version, common_name: common_name(subject) })
}

/// Returns the last common name in a distinguished name.
fn common_name(mut names: &[u8]) -> Option<String> {
    const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    let mut found = None;
    while let Some((_, set, rest)) = element(names) {
        names = rest;
        let Some((_, pair, _)) = element(set) else { continue };
        let Some((_, COMMON_NAME, value)) = element(pair) else { continue };
        let Some((_, text, _)) = element(value) else { continue };
        let text = String::from_utf8_lossy(text);
        found = Some(text.chars().take(64).flat_map(char::escape_debug).collect());
    }
    found
}

/// Splits off the first DER element. Returns its tag, its content and the rest.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits.iter().fold(0_usize, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn certificate_facts_are_read() {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "dev\u{1b}ice");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let common_name = Some("dev\\u{1b}ice".to_owned());
        assert_eq!(facts(certificate.der()), Some(Facts { version: 3, common_name }));
    }

    proptest! {
        #[test]
        fn certificate_reader_accepts_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = facts(&bytes);
            let nested = [&[0x30, 0x81, 80, 0x30, 78, 0xa0, 3, 2, 1, 2], &bytes[..]].concat();
            let _ = facts(&nested);
        }
    }
}
