//! Addresses of coordinators, as people write them.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use http::Uri;

/// The address of a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    uri: Uri,
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(String);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for AddressError {}

impl Address {
    /// Parses `http://host:port`, or `host:port` for short.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let wrong = |why: &str| Err(AddressError(format!("the address {text:?} {why}")));
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("http", text.trim()));
        match scheme {
            "http" => {}
            "https" => return wrong("starts with https, which this version of farpool does not support: use http"),
            _ => return wrong("has a scheme that farpool does not support: write it as http://host:7070"),
        }
        let Ok(uri) = format!("http://{rest}").parse::<Uri>() else {
            return wrong("is not valid: write it as http://host:7070");
        };
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return wrong("has no host: write it as http://host:7070");
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        match authority.strip_prefix(host) {
            None => return wrong("has something before the host: write it as http://host:7070"),
            Some("" | ":") => return wrong("has no port: write it as http://host:7070"),
            Some(_) if uri.port_u16().is_none_or(|port| port == 0) => {
                return wrong("has a port that is not a number from 1 to 65535: write it as http://host:7070");
            }
            Some(_) => {}
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return wrong("has something after the port: write it as http://host:7070");
        }
        Ok(Self { uri })
    }

    /// Returns the URI to connect to.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns the host's name or IP address, without brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.uri.authority().map_or("", |authority| authority.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_addresses_are_parsed() {
        for (text, expected) in [
            ("http://127.0.0.1:7070", "http://127.0.0.1:7070"),
            ("http://127.0.0.1:7070/", "http://127.0.0.1:7070"),
            ("node7:80", "http://node7:80"),
            (" node7.example.org:7070 ", "http://node7.example.org:7070"),
            ("http://[::1]:7070", "http://[::1]:7070"),
            ("[::1]:7070", "http://[::1]:7070"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn invalid_addresses_are_refused_with_the_reason() {
        for (text, words) in [
            ("https://node7:7070", "use http"),
            ("farpool://node7:7070", "write it as http://"),
            ("node7", "has no port"),
            ("http://node7", "has no port"),
            ("node7:", "has no port"),
            ("node7:0", "from 1 to 65535"),
            ("node7:99999", "from 1 to 65535"),
            ("http://node7:70000", "from 1 to 65535"),
            ("node7:http", "from 1 to 65535"),
            ("[::1]:x", "write it as"),
            ("me@node7:7070", "before the host"),
            ("http://:7070", "write it as"),
            ("http://node7:7070/pools", "after the port"),
            ("http://node7:7070?x=1", "after the port"),
            ("", "write it as"),
            ("no de:7070", "write it as"),
        ] {
            let story = Address::parse(text).unwrap_err().to_string();
            assert!(story.contains(words) && story.contains(&format!("{text:?}")), "{story} / {words}");
        }
    }
}
