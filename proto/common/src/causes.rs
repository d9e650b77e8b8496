//! An error and its causes in one line.

use std::error::Error;

/// Returns an error's text followed by its causes, without repetitions.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    with_causes(error.to_string(), error)
}

/// Returns the same, with another text for the error itself.
pub fn with_causes(text: String, error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(text, |text, cause| match cause.to_string() {
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
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
    fn causes_are_not_repeated() {
        let root = Because("connection refused", None);
        let middle = Because("tcp connect error", Some(Box::new(root)));
        let top = Because("transport error", Some(Box::new(Because("tcp connect error", Some(Box::new(middle))))));
        assert_eq!(causes(&top), "transport error: tcp connect error: connection refused");
        assert_eq!(with_causes("opening".to_owned(), &top), "opening: tcp connect error: connection refused");
    }
}
