//! One value of a column: as JSON for whoever reads it, and compared with a value of another batch. Both
//! know exactly the types that a data set has.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use serde_json::{Value, json};

use crate::time::Instant;

/// The value as JSON. Decimals are texts with their scale, instants RFC 3339, bytes hex; what is beyond the
/// rows or of a type that no data set has is null.
pub fn cell(array: &dyn Array, row: usize) -> Value {
    if row >= array.len() || array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(row)),
        DataType::Float64 => json!(array.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => json!(array.as_boolean().value(row)),
        DataType::Decimal128(..) => json!(array.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Timestamp(..) => json!(Instant(array.as_primitive::<TimestampMicrosecondType>().value(row))),
        DataType::FixedSizeBinary(_) => json!(crate::digest::hex(array.as_fixed_size_binary().value(row))),
        _ => Value::Null,
    }
}

/// Whether two values are the same, null equal to null; of two types they are so where they read the same.
pub fn same(left: &dyn Array, at: usize, right: &dyn Array, there: usize) -> bool {
    if left.is_null(at) || right.is_null(there) {
        return left.is_null(at) == right.is_null(there);
    }
    match (left.data_type(), right.data_type()) {
        (DataType::Utf8, DataType::Utf8) => left.as_string::<i32>().value(at) == right.as_string::<i32>().value(there),
        (DataType::Int64, DataType::Int64) => left.as_primitive::<Int64Type>().value(at) == right.as_primitive::<Int64Type>().value(there),
        (DataType::Timestamp(..), DataType::Timestamp(..)) => {
            left.as_primitive::<TimestampMicrosecondType>().value(at) == right.as_primitive::<TimestampMicrosecondType>().value(there)
        }
        (DataType::Float64, DataType::Float64) => {
            left.as_primitive::<Float64Type>().value(at).to_bits() == right.as_primitive::<Float64Type>().value(there).to_bits()
        }
        _ => cell(left, at) == cell(right, there),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };

    use super::*;

    fn columns() -> Vec<(ArrayRef, Value)> {
        vec![
            (Arc::new(StringArray::from(vec![Some("é\n"), None])), json!("é\n")),
            (Arc::new(Int64Array::from(vec![Some(i64::MIN), None])), json!(i64::MIN)),
            (Arc::new(Int32Array::from(vec![Some(-3), None])), json!(-3)),
            (Arc::new(Float64Array::from(vec![Some(0.1), None])), json!(0.1)),
            (Arc::new(BooleanArray::from(vec![Some(true), None])), json!(true)),
            (Arc::new(Decimal128Array::from(vec![Some(-12_345), None]).with_precision_and_scale(9, 3).unwrap()), json!("-12.345")),
            (Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None]).with_timezone("UTC")), json!("1970-01-01T00:00:00.000001Z")),
        ]
    }

    #[test]
    fn values_of_every_type_read_exactly_and_equal_only_themselves() {
        let all = columns();
        for (i, (left, wanted)) in all.iter().enumerate() {
            assert_eq!((cell(left, 0), cell(left, 1), cell(left, 2)), (wanted.clone(), Value::Null, Value::Null));
            for (j, (right, _)) in all.iter().enumerate() {
                assert_eq!(same(left, 0, right, 0), i == j, "{i} {j}");
                assert!(!same(left, 0, right, 1) && same(left, 1, right, 1), "{i} {j}");
            }
        }
        let (zero, minus): (ArrayRef, ArrayRef) = (Arc::new(Float64Array::from(vec![0.0])), Arc::new(Float64Array::from(vec![-0.0])));
        assert!(!same(&zero, 0, &minus, 0));
    }
}
