//! Values that may be absent: a message of one field in NRI, an `Option` in Berth.

use berth_nri::nri::{
    OptionalBool, OptionalFileMode, OptionalInt, OptionalInt64, OptionalString, OptionalUInt32,
    OptionalUInt64,
};
use protobuf::MessageField;

/// A message that holds one value.
pub(in crate::nri) trait Optional: Sized {
    type Value;

    fn holding(value: Self::Value) -> Self;
    fn held(&self) -> Self::Value;

    /// Converts an option; `None` becomes an absent message.
    fn of(value: Option<impl Into<Self::Value>>) -> MessageField<Self> {
        value.map(|value| Self::holding(value.into())).into()
    }

    /// Returns the value, if present.
    fn get(field: &MessageField<Self>) -> Option<Self::Value> {
        field.as_ref().map(Self::held)
    }
}

macro_rules! optional {
    ($($message:ident: $value:ty),*) => {
        $(impl Optional for $message {
            type Value = $value;

            fn holding(value: $value) -> Self {
                Self { value, ..Default::default() }
            }

            fn held(&self) -> $value {
                self.value.clone()
            }
        })*
    };
}

optional! {
    OptionalBool: bool,
    OptionalFileMode: u32,
    OptionalInt: i64,
    OptionalInt64: i64,
    OptionalString: String,
    OptionalUInt32: u32,
    OptionalUInt64: u64
}
