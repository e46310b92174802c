//! A column of offsets in either form.

use std::fmt::Write as _;

use arrow::array::{Array, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};

use super::EngineError;
use crate::contract::Offset;

/// Offsets by the kind of their lanes.
#[derive(Debug, Clone)]
pub enum Offsets {
    /// Every kind is dense.
    Dense(Int64Array),
    /// Some kind is sparse: decimal text.
    Text(StringArray),
}

impl Offsets {
    /// Reads a column in either form.
    ///
    /// # Errors
    /// Another type.
    pub fn of(array: &dyn Array) -> Result<Self, EngineError> {
        match array.data_type() {
            DataType::Int64 => Ok(Offsets::Dense(array.as_primitive::<Int64Type>().clone())),
            DataType::Utf8 => Ok(Offsets::Text(array.as_string().clone())),
            other => Err(EngineError::Internal(format!("an offset column of type {other}"))),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Offsets::Dense(a) => a.len(),
            Offsets::Text(a) => a.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The offset in a row of a column that holds nothing else.
    pub fn get(&self, row: usize) -> Offset {
        self.checked(row).unwrap_or_default()
    }

    /// The offset in a row, where it is one.
    pub fn checked(&self, row: usize) -> Option<Offset> {
        match self {
            Offsets::Dense(a) => u64::try_from(a.value(row)).ok().map(Offset::from),
            Offsets::Text(a) => Offset::parse(a.value(row)),
        }
    }

    /// Appends what stands in a row, be it an offset or not.
    pub fn write(&self, row: usize, text: &mut String) {
        match self {
            Offsets::Dense(a) => drop(write!(text, "{}", a.value(row))),
            Offsets::Text(a) => text.push_str(a.value(row)),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;

    use super::*;

    #[test]
    fn both_forms_say_the_same_and_what_is_no_offset_is_none() {
        let dense = Offsets::of(&Int64Array::from(vec![7, -1])).unwrap();
        let text = Offsets::of(&StringArray::from(vec!["7", "-1"])).unwrap();
        for offsets in [dense, text] {
            assert_eq!((offsets.len(), offsets.get(0), offsets.checked(0), offsets.checked(1)), (2, 7.into(), Some(7.into()), None));
            let mut written = String::new();
            (0..2).for_each(|row| offsets.write(row, &mut written));
            assert_eq!(written, "7-1");
        }
        assert!(Offsets::of(&Int32Array::from(vec![7])).is_err());
    }
}
