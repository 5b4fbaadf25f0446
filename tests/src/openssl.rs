//! Certificates and keys made by the command `openssl`, in a folder that is removed after the test.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

/// Whether `openssl` can be run here. If not, prints that the test is skipped and returns `false`.
///
/// # Panics
///
/// If it cannot be run and `PHX_REQUIRE_PEERS` is set.
pub fn available(test: &str) -> bool {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    let why = ANSWER.get_or_init(|| {
        let version = Command::new("openssl").arg("version").stdin(Stdio::null()).output();
        version.err().map(|error| error.to_string())
    });
    let Some(why) = why else { return true };
    let required = env::var_os("PHX_REQUIRE_PEERS").is_some_and(|value| !value.is_empty());
    assert!(!required, "PHX_REQUIRE_PEERS is set and openssl cannot be run: {why}");
    let _ = writeln!(io::stderr(), "SKIPPED {test}: openssl cannot be run: {why}");
    false
}

/// A temporary folder in which `openssl` runs.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Creates an empty folder.
    ///
    /// # Panics
    ///
    /// If it cannot be created.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("phx-openssl-{}-{number}", process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// Runs a command line, with or without its first word `openssl`; no word may contain a space.
    ///
    /// # Panics
    ///
    /// If `openssl` fails, with its error output.
    pub fn run(&self, line: &str) -> Vec<u8> {
        let words = line.split_whitespace().skip_while(|word| *word == "openssl");
        let output = Command::new("openssl")
            .args(words)
            .current_dir(&self.0)
            .stdin(Stdio::null())
            .output()
            .expect("openssl runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {line}: {stderr}");
        output.stdout
    }

    /// The path of a file in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Reads a file in the folder.
    ///
    /// # Panics
    ///
    /// If the file cannot be read.
    #[must_use]
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect(name)
    }

    /// Writes a file in the folder.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect(name);
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the NULL that should follow the key's identifier from a self-signed RSA certificate in
/// DER, as Erlang does, and signs the result with `key.pem` in the folder.
///
/// # Panics
///
/// If `certificate` is not a certificate, or already lacks the NULL.
#[must_use]
pub fn without_rsa_parameters(folder: &Folder, certificate: &[u8]) -> Vec<u8> {
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 5, 0];
    let [body, algorithm, _] = &parts(content(certificate).0)[..] else { panic!("three parts") };
    let mut fields: Vec<Vec<u8>> =
        parts(content(body).0).iter().map(|part| part.to_vec()).collect();
    let with = |field: &Vec<u8>| field.windows(RSA.len()).any(|part| part == RSA);
    let key = fields.iter_mut().find(|field| with(field)).expect("the key with its NULL");
    let [_, bits] = &parts(content(key).0)[..] else { panic!("two parts") };
    let identifier = sequence(&RSA[..RSA.len() - 2]);
    *key = sequence(&[&identifier, *bits].concat());
    let body = sequence(&fields.concat());
    folder.write("body.der", &body);
    let signature = folder.run("dgst -sha256 -sign key.pem body.der");
    let signature = element(3, &[&[0], &signature[..]].concat());
    sequence(&[&body, *algorithm, &signature].concat())
}

fn sequence(content: &[u8]) -> Vec<u8> {
    element(0x30, content)
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a short one").to_be_bytes();
    let length = match (content.len(), length) {
        (0..=0x7f, [_, low]) => vec![low],
        (0x80..=0xff, [_, low]) => vec![0x81, low],
        (_, [high, low]) => vec![0x82, high, low],
    };
    [&[tag], &length[..], content].concat()
}

/// The content of the first element, and the length of the whole element.
fn content(der: &[u8]) -> (&[u8], usize) {
    let (head, length) = match der[1] {
        length @ 0..=0x7f => (2, usize::from(length)),
        0x81 => (3, usize::from(der[2])),
        _ => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
    };
    (&der[head..head + length], head + length)
}

fn parts(mut der: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while !der.is_empty() {
        let (part, rest) = der.split_at(content(der).1);
        parts.push(part);
        der = rest;
    }
    parts
}
