//! Owners of sessions, pools and jobs.

use std::fmt;
use std::sync::{Arc, LazyLock};

use farpool_proto::v1;

/// The owner of a session, and of the pools and jobs that are opened in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    tenant: Arc<str>,
    name: Arc<str>,
}

impl Principal {
    /// Makes the principal of a member of a tenant.
    pub fn new(tenant: &str, name: &str) -> Self {
        Self { tenant: tenant.into(), name: name.into() }
    }

    /// Returns the principal of connections that are not authenticated.
    pub fn local() -> Self {
        static LOCAL: LazyLock<Principal> = LazyLock::new(|| Principal::new("local", "local"));
        LOCAL.clone()
    }

    /// Returns the principal in a message; `None`: `local`.
    pub fn named(principal: Option<&v1::Principal>) -> Self {
        principal.map_or_else(Self::local, |principal| Self::new(&principal.tenant, &principal.name))
    }

    /// Converts it for a message.
    pub fn to_message(&self) -> v1::Principal {
        v1::Principal { tenant: self.tenant().to_owned(), name: self.name().to_owned() }
    }

    /// Returns the tenant. Detached jobs and their names belong to the tenant.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Returns the name within the tenant.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Default for Principal {
    fn default() -> Self {
        Self::local()
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_that_is_not_named_is_local() {
        let ada = Principal::new("maths", "ada");
        assert_eq!(Principal::named(Some(&ada.to_message())), ada);
        assert_eq!(Principal::named(None), Principal::local());
        assert_eq!((ada.to_string().as_str(), Principal::local().tenant()), ("maths/ada", "local"));
    }
}
