//! Why an error happened.

use std::error::Error;

/// Returns the cause that has no further cause. The layers above it often only say "transport error" and the like.
pub fn root_cause<'e>(mut error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Because(&'static str, Option<Box<Because>>);

    impl fmt::Display for Because {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Because {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn the_last_cause_is_returned() {
        let root = Because("connection refused", None);
        assert_eq!(root_cause(&root).to_string(), "connection refused");
        let middle = Because("tcp connect error", Some(Box::new(root)));
        let top = Because("transport error", Some(Box::new(middle)));
        assert_eq!(root_cause(&top).to_string(), "connection refused");
    }
}
