//! Instances of plain classes: those that pickle takes apart into their class and their attributes.
//!
//! Pickle asks each instance's class again how to take it apart, which takes longer than the rest.

use std::collections::HashSet;
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};

use crate::background;
use crate::errors;
use crate::native::{DEPTH, INSTANCE, STR, plain, sized};

/// Of how many classes an encoder remembers whether they are plain.
const MOST_CLASSES: usize = 32;

/// The classes whose instances were encoded.
pub(crate) struct Classes {
    /// The names that the function has published in the workers' `__main__`. `None` in workers: clients have all of `__main__`.
    published: Option<Arc<HashSet<String>>>,
    /// The encoded names of each class; none if it is not plain. The reference keeps a new class from getting the same address.
    examined: Vec<(Py<PyType>, Option<Vec<u8>>)>,
}

impl Classes {
    pub(crate) fn new(published: Option<Arc<HashSet<String>>>) -> Self {
        Self { published, examined: Vec::new() }
    }

    /// Appends an instance of a plain class whose attributes all have native encodings: the names of the class's module and of the
    /// class, how many attributes it has, and their names and values. Otherwise returns false, and may have appended a part.
    ///
    /// # Errors
    /// What interrupts this thread.
    pub(crate) fn encode(&mut self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
        let py = value.py();
        let Some(names) = self.names(&value.get_type())? else { return Ok(false) };
        let Ok(attributes) = value.getattr(intern!(py, "__dict__")) else { return Ok(false) };
        let Ok(attributes) = attributes.cast_exact::<PyDict>() else { return Ok(false) };
        let Ok(length) = u32::try_from(attributes.len()) else { return Ok(false) };
        out.push(INSTANCE);
        out.extend_from_slice(names);
        out.extend_from_slice(&length.to_le_bytes());
        Ok(attributes.iter().all(|(name, value)| {
            let Ok(name) = name.cast_exact::<PyString>() else { return false };
            // An instance may have methods of its own, which pickle would call.
            let name = name.to_str().ok().filter(|name| !name.starts_with("__"));
            name.is_some_and(|name| sized(STR, name.as_bytes(), out)) && plain(&value, out, DEPTH)
        }))
    }

    /// Returns the encoded names of a class, if it is plain.
    fn names(&mut self, class: &Bound<'_, PyType>) -> PyResult<Option<&[u8]>> {
        let known = self.examined.iter().position(|(known, _)| known.as_ptr() == class.as_ptr());
        let at = match known {
            Some(at) => at,
            None => {
                let names = match self.examine(class) {
                    Err(error) if errors::interrupts(class.py(), &error) => return Err(error),
                    examined => examined.unwrap_or(None),
                };
                if self.examined.len() >= MOST_CLASSES {
                    self.examined.clear();
                }
                self.examined.push((class.clone().unbind(), names));
                self.examined.len() - 1
            }
        };
        Ok(self.examined[at].1.as_deref())
    }

    fn examine(&self, class: &Bound<'_, PyType>) -> PyResult<Option<Vec<u8>>> {
        let py = class.py();
        let worker = py.import(intern!(py, "farpool._worker"))?;
        let names = background::call(&worker.getattr(intern!(py, "plain_class"))?, &[class.as_any()], None)?;
        let Some((module, name)) = names.extract::<Option<(String, String)>>()? else { return Ok(None) };
        if let Some(published) = &self.published
            && (module == "__mp_main__" || (module == "__main__" && !published.contains(&name)))
        {
            return Ok(None);
        }
        let mut encoded = Vec::new();
        Ok((sized(STR, module.as_bytes(), &mut encoded) && sized(STR, name.as_bytes(), &mut encoded))
            .then_some(encoded))
    }
}

/// Makes an instance without attributes. `class`: its name within its module.
pub(crate) fn make<'py>(
    py: Python<'py>,
    module: &str,
    class: &str,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyDict>)> {
    let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
    let mut found = match modules.cast::<PyDict>()?.get_item(module)? {
        Some(found) => found,
        None => {
            let import = py.import(intern!(py, "farpool._worker"))?.getattr(intern!(py, "import_modules"))?;
            background::call(&import, &[PyString::new(py, module).as_any()], None)?
        }
    };
    for name in class.split('.') {
        found = found.getattr(name)?;
    }
    let instance = found.call_method1(intern!(py, "__new__"), (&found,))?;
    let attributes = instance.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
    Ok((instance, attributes))
}
