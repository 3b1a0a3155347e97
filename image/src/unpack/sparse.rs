//! Maps of sparse files: the places of the stored bytes in the file. All forms GNU tar has written: the old header, and
//! PAX 0.0, 0.1 and 1.0.

use std::io;

use tar::GnuSparseHeader;

use super::archive::malformed;
use super::pax::{self, Records};

/// The most extents one file may have.
const MAX_EXTENTS: usize = 1 << 20;

/// A run of stored bytes and its place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Accepts extents that are in order, do not overlap, lie inside the file, and cover exactly the stored bytes.
pub(crate) fn checked(extents: Vec<Extent>, stored: u64, real: u64) -> io::Result<(u64, Vec<Extent>)> {
    let mut end = 0;
    let mut total = 0_u64;
    for extent in &extents {
        let next = extent.offset.checked_add(extent.length);
        end = next
            .filter(|next| extent.offset >= end && *next <= real)
            .ok_or_else(|| malformed("sparse extents overlap or leave the file"))?;
        total += extent.length;
    }
    if total != stored || i64::try_from(real).is_err() {
        return Err(malformed("sparse extents do not match the stored size"));
    }
    Ok((real, extents))
}

/// Adds the used slots of an old GNU header to `extents`.
pub(crate) fn collect(slots: &[GnuSparseHeader], extents: &mut Vec<Extent>) -> io::Result<()> {
    for slot in slots.iter().filter(|slot| !slot.is_empty()) {
        let (offset, length) = (slot.offset()?, slot.length()?);
        push(extents, Extent { offset, length })?;
    }
    Ok(())
}

/// Reads PAX 0.1 (`GNU.sparse.map`) or 0.0 (one record for each offset and each length), if the entry has either.
pub(crate) fn from_records(pax: &Records) -> io::Result<Option<Vec<Extent>>> {
    let numbers: Vec<u64> = match pax.get("GNU.sparse.map") {
        Some(map) => map.split(|byte| *byte == b',').map(pax::decimal).collect::<Result<_, _>>()?,
        None => {
            let wanted: [&[u8]; 2] = [b"GNU.sparse.offset", b"GNU.sparse.numbytes"];
            let records = pax.iter().filter(|(key, _)| wanted.contains(key));
            records.map(|(_, value)| pax::decimal(value)).collect::<Result<_, _>>()?
        }
    };
    if numbers.is_empty() {
        return Ok(None);
    }
    pairs(&numbers).map(Some)
}

fn pairs(numbers: &[u64]) -> io::Result<Vec<Extent>> {
    let (pairs, odd) = numbers.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(malformed("a sparse map with an offset but no length"));
    }
    let extent = |&[offset, length]: &[u64; 2]| Extent { offset, length };
    Ok(pairs.iter().map(extent).collect())
}

fn push(extents: &mut Vec<Extent>, extent: Extent) -> io::Result<()> {
    if extents.len() == MAX_EXTENTS {
        return Err(malformed("a sparse file with more than a million extents"));
    }
    extents.push(extent);
    Ok(())
}

/// The map of PAX 1.0: a count, then offset and length of each extent, one decimal number a line, in whole blocks.
#[derive(Default)]
pub(crate) struct Map {
    line: Vec<u8>,
    count: Option<u64>,
    offset: Option<u64>,
    extents: Vec<Extent>,
}

impl Map {
    pub(crate) fn is_complete(&self) -> bool {
        self.count == Some(self.extents.len() as u64)
    }

    pub(crate) fn feed(&mut self, block: &[u8]) -> io::Result<()> {
        for byte in block {
            if self.is_complete() {
                return Ok(());
            }
            match byte {
                b'\n' => self.number()?,
                _ if self.line.len() == 20 => return Err(malformed("a broken sparse map")),
                byte => self.line.push(*byte),
            }
        }
        Ok(())
    }

    fn number(&mut self) -> io::Result<()> {
        let number = pax::decimal(&self.line)?;
        self.line.clear();
        if self.count.is_none() {
            self.count = Some(number);
        } else if let Some(offset) = self.offset.take() {
            let length = number;
            push(&mut self.extents, Extent { offset, length })?;
        } else {
            self.offset = Some(number);
        }
        Ok(())
    }

    pub(crate) fn into_extents(self) -> Vec<Extent> {
        self.extents
    }
}
