//! The encoded form of records: a byte with the version, and the rows of that version.
//!
//! A version never changes once a release has it: another one is added, and this host reads all. The structs are apart
//! from the live ones for that reason.

mod v1;

use self::v1::RowV1;
use super::Record;

/// The version that is written.
pub(super) const VERSION: u8 = 1;

/// The error of reading a record.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(in crate::store) enum RecordError {
    /// A record has at least its version.
    #[error("the record is empty")]
    Empty,
    /// A newer host made it.
    #[error("the record has version {0}; this host knows versions up to {VERSION}")]
    Version(u8),
    /// The bytes are not those of a record.
    #[error("the record cannot be read: {0}")]
    Malformed(postcard::Error),
}

/// Encodes a record.
pub(in crate::store) fn encode(record: &Record<'_>) -> Vec<u8> {
    let rows: Vec<RowV1<'_>> = record.rows.iter().map(|row| RowV1::of(row, record)).collect();
    postcard::to_extend(&rows, vec![VERSION]).expect("a vector takes whatever is written")
}

/// Reads a record of any version.
pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Record<'_>, RecordError> {
    let (version, rest) = bytes.split_first().ok_or(RecordError::Empty)?;
    match version {
        1 => {
            let rows: Vec<RowV1<'_>> = postcard::from_bytes(rest).map_err(RecordError::Malformed)?;
            let mut record = Record::default();
            for row in rows {
                let row = row.into_row(&mut record);
                record.push(row);
            }
            Ok(record)
        }
        // No version 0 was ever written, so it is refused like a newer one.
        newer => Err(RecordError::Version(*newer)),
    }
}

/// Reads a record in its encoded form, and writes what was read again.
///
/// # Panics
/// The written form of a record is read as another one.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn examine_record(bytes: &[u8]) {
    if let Ok(record) = decode(bytes) {
        let written = encode(&record);
        // Compared as they are read: numbers have longer forms too, and those come shorter out of it.
        assert_eq!(decode(&written).as_ref().map(encode).as_ref(), Ok(&written));
    }
}

#[cfg(test)]
pub(super) mod tests;
