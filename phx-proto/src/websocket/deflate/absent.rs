//! Stand-ins for the codecs in a build without the feature `deflate`. No value of them exists.

use bytes::Bytes;

use super::violation::Violation;

pub(super) enum Scratch {}

#[derive(Clone, Debug)]
pub(super) enum Compressor {}

#[derive(Clone, Debug)]
pub(super) enum Decompressor {}

pub(super) const fn compressed_max(max: usize) -> usize {
    max
}

impl Compressor {
    pub(super) fn compress(&mut self, _: &[u8], _: Option<&mut Scratch>) -> Option<Bytes> {
        match *self {}
    }
}

impl Decompressor {
    pub(super) fn decompress(
        &mut self,
        _: &[u8],
        _: bool,
        _: usize,
        _: Option<&mut Scratch>,
    ) -> Result<Vec<u8>, Violation> {
        match *self {}
    }
}
