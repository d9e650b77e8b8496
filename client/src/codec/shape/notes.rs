//! The notes that are taken while a value is read, of what each of its parts is asked for.

use super::{Ask, Content, Fields, Leaf, Node, Variants, fresh_nodes};

/// Where it is noted what is asked for.
#[derive(Clone, Copy)]
pub(in crate::codec) struct Place<'r> {
    node: &'static Node,
    around: Option<&'r Around<'r>>,
}

/// A part that is being read, and those around it.
#[derive(Clone, Copy)]
pub(in crate::codec) struct Around<'r> {
    /// The code that reads it; 0: it depends on more than the code.
    identity: usize,
    node: &'static Node,
    next: Option<&'r Around<'r>>,
}

/// What was noted of a part that has parts.
#[derive(Clone, Copy)]
pub(in crate::codec) struct Noted<'r> {
    node: &'static Node,
    pub(in crate::codec) ask: &'static Ask,
    around: Around<'r>,
}

impl<'r> Place<'r> {
    /// That of a whole value.
    pub(super) fn of(root: &'static Node) -> Self {
        Self { node: root, around: None }
    }

    pub(in crate::codec) fn inside(node: &'static Node, noted: &'r Noted<'r>) -> Self {
        Self { node, around: Some(&noted.around) }
    }

    pub(in crate::codec) fn leaf(self, leaf: Leaf) {
        self.note(0, || Ask::Leaf(leaf), |ask| matches!(ask, Ask::Leaf(asked) if *asked == leaf));
    }

    pub(in crate::codec) fn any(self) {
        self.note(0, || Ask::Any, |ask| matches!(ask, Ask::Any));
    }

    pub(in crate::codec) fn option(self, identity: usize) -> Option<Noted<'r>> {
        self.note(identity, || Ask::Option(Node::fresh()), |ask| matches!(ask, Ask::Option(_)))
    }

    pub(in crate::codec) fn seq(self, identity: usize) -> Option<Noted<'r>> {
        self.note(identity, || Ask::Seq(Node::fresh()), |ask| matches!(ask, Ask::Seq(_)))
    }

    pub(in crate::codec) fn map(self, identity: usize) -> Option<Noted<'r>> {
        self.note(identity, || Ask::Map(Node::fresh(), Node::fresh()), |ask| matches!(ask, Ask::Map(..)))
    }

    pub(in crate::codec) fn tuple(self, identity: usize, length: usize) -> Option<Noted<'r>> {
        let alike = |ask: &Ask| matches!(ask, Ask::Tuple(nodes) if nodes.len() == length);
        self.note(identity, || Ask::Tuple(fresh_nodes(length)), alike)
    }

    pub(in crate::codec) fn fields(self, identity: usize, names: &'static [&'static str]) -> Option<Noted<'r>> {
        let alike = |ask: &Ask| matches!(ask, Ask::Struct(fields) if fields.names == names);
        self.note(identity, || Ask::Struct(Fields::new(names)), alike)
    }

    pub(in crate::codec) fn variants(self, identity: usize, names: &'static [&'static str]) -> Option<Noted<'r>> {
        let alike = |ask: &Ask| matches!(ask, Ask::Enum(variants) if variants.names == names);
        let make = || Ask::Enum(Variants { names, each: names.iter().map(|_| Default::default()).collect() });
        self.note(identity, make, alike)
    }

    fn note(self, identity: usize, make: impl FnOnce() -> Ask, alike: impl Fn(&Ask) -> bool) -> Option<Noted<'r>> {
        let mut node = self.node;
        // The same code asks the same of its parts: a recursive type's shape ends where it begins again.
        if identity != 0
            && node.ask.get().is_none()
            && let Some(outer) = self.outer(identity)
            && outer.ask.get().is_some_and(&alike)
        {
            let _ = node.ask.set(Ask::Same(outer));
        }
        if let Some(Ask::Same(outer)) = node.ask.get() {
            node = outer;
        }
        let ask = node.ask.get_or_init(make);
        if !alike(ask) {
            self.node.refuse();
            return None;
        }
        Some(Noted { node, ask, around: Around { identity, node, next: self.around } })
    }

    fn outer(&self, identity: usize) -> Option<&'static Node> {
        let mut around = self.around;
        while let Some(outer) = around {
            if outer.identity == identity {
                return Some(outer.node);
            }
            around = outer.next;
        }
        None
    }
}

impl Noted<'_> {
    /// The content of the variant that is at this place.
    pub(in crate::codec) fn content(
        &self,
        place: usize,
        make: impl FnOnce() -> Content,
        alike: impl Fn(&Content) -> bool,
    ) -> Option<&'static Content> {
        let Ask::Enum(variants) = self.ask else { return None };
        let content = variants.each.get(place)?.get_or_init(make);
        if !alike(content) {
            self.node.refuse();
            return None;
        }
        Some(content)
    }
}

impl Content {
    pub(in crate::codec) fn newtype() -> Self {
        Self::Newtype(Node::fresh())
    }

    pub(in crate::codec) fn tuple(length: usize) -> Self {
        Self::Tuple(fresh_nodes(length))
    }

    pub(in crate::codec) fn fields(names: &'static [&'static str]) -> Self {
        Self::Struct(Fields::new(names))
    }
}

impl Fields {
    /// So many fields were asked for without names; `None`: not as many as there were.
    pub(in crate::codec) fn asked(&self, count: Option<usize>) {
        self.found(count);
    }
}
