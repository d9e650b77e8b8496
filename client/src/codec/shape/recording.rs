//! Records what Deserialize asks for while it decodes a value.

use super::{Content, Fields, Leaf, Node, Shape, Variants, unknown_nodes};

/// Records what Deserialize asks for at one place in a type.
#[derive(Clone, Copy)]
pub(in crate::codec) struct Recorder<'r> {
    node: &'static Node,
    enclosing: Option<&'r Enclosing<'r>>,
}

/// A part that is being decoded, and the parts around it.
#[derive(Clone, Copy)]
pub(in crate::codec) struct Enclosing<'r> {
    /// The address of the code that decodes it; 0: the result depends on more than the code.
    identity: usize,
    node: &'static Node,
    next: Option<&'r Enclosing<'r>>,
}

/// The recorded shape of a part that has parts.
#[derive(Clone, Copy)]
pub(in crate::codec) struct Recorded<'r> {
    node: &'static Node,
    pub(in crate::codec) shape: &'static Shape,
    enclosing: Enclosing<'r>,
}

impl<'r> Recorder<'r> {
    /// Records a whole value.
    pub(super) fn of(root: &'static Node) -> Self {
        Self { node: root, enclosing: None }
    }

    pub(in crate::codec) fn inside(node: &'static Node, recorded: &'r Recorded<'r>) -> Self {
        Self { node, enclosing: Some(&recorded.enclosing) }
    }

    pub(in crate::codec) fn leaf(self, leaf: Leaf) {
        self.record(0, || Shape::Leaf(leaf), |shape| matches!(shape, Shape::Leaf(asked) if *asked == leaf));
    }

    pub(in crate::codec) fn any(self) {
        self.record(0, || Shape::Any, |shape| matches!(shape, Shape::Any));
    }

    pub(in crate::codec) fn option(self, identity: usize) -> Option<Recorded<'r>> {
        self.record(identity, || Shape::Option(Node::unknown()), |shape| matches!(shape, Shape::Option(_)))
    }

    pub(in crate::codec) fn seq(self, identity: usize) -> Option<Recorded<'r>> {
        self.record(identity, || Shape::Seq(Node::unknown()), |shape| matches!(shape, Shape::Seq(_)))
    }

    pub(in crate::codec) fn map(self, identity: usize) -> Option<Recorded<'r>> {
        self.record(identity, || Shape::Map(Node::unknown(), Node::unknown()), |shape| matches!(shape, Shape::Map(..)))
    }

    pub(in crate::codec) fn tuple(self, identity: usize, length: usize) -> Option<Recorded<'r>> {
        let alike = |shape: &Shape| matches!(shape, Shape::Tuple(nodes) if nodes.len() == length);
        self.record(identity, || Shape::Tuple(unknown_nodes(length)), alike)
    }

    pub(in crate::codec) fn fields(self, identity: usize, names: &'static [&'static str]) -> Option<Recorded<'r>> {
        let alike = |shape: &Shape| matches!(shape, Shape::Struct(fields) if fields.names == names);
        self.record(identity, || Shape::Struct(Fields::new(names)), alike)
    }

    pub(in crate::codec) fn variants(self, identity: usize, names: &'static [&'static str]) -> Option<Recorded<'r>> {
        let alike = |shape: &Shape| matches!(shape, Shape::Enum(variants) if variants.names == names);
        let make = || Shape::Enum(Variants { names, each: names.iter().map(|_| Default::default()).collect() });
        self.record(identity, make, alike)
    }

    fn record(
        self,
        identity: usize,
        make: impl FnOnce() -> Shape,
        alike: impl Fn(&Shape) -> bool,
    ) -> Option<Recorded<'r>> {
        let mut node = self.node;
        // The same code asks for the same parts: the shape of a recursive type ends where the type repeats.
        if identity != 0
            && node.shape.get().is_none()
            && let Some(outer) = self.outer(identity)
            && outer.shape.get().is_some_and(&alike)
        {
            let _ = node.shape.set(Shape::Same(outer));
        }
        if let Some(Shape::Same(outer)) = node.shape.get() {
            node = outer;
        }
        let shape = node.shape.get_or_init(make);
        if !alike(shape) {
            self.node.refuse();
            return None;
        }
        Some(Recorded { node, shape, enclosing: Enclosing { identity, node, next: self.enclosing } })
    }

    fn outer(&self, identity: usize) -> Option<&'static Node> {
        let mut enclosing = self.enclosing;
        while let Some(outer) = enclosing {
            if outer.identity == identity {
                return Some(outer.node);
            }
            enclosing = outer.next;
        }
        None
    }
}

impl Recorded<'_> {
    /// Records the content of the variant at this index.
    pub(in crate::codec) fn content(
        &self,
        index: usize,
        make: impl FnOnce() -> Content,
        alike: impl Fn(&Content) -> bool,
    ) -> Option<&'static Content> {
        let Shape::Enum(variants) = self.shape else { return None };
        let content = variants.each.get(index)?.get_or_init(make);
        if !alike(content) {
            self.node.refuse();
            return None;
        }
        Some(content)
    }
}

impl Content {
    pub(in crate::codec) fn newtype() -> Self {
        Self::Newtype(Node::unknown())
    }

    pub(in crate::codec) fn tuple(length: usize) -> Self {
        Self::Tuple(unknown_nodes(length))
    }

    pub(in crate::codec) fn fields(names: &'static [&'static str]) -> Self {
        Self::Struct(Fields::new(names))
    }
}

impl Fields {
    /// Records how many fields Deserialize asked for without names; `None`: not as many as there were.
    pub(in crate::codec) fn asked(&self, count: Option<usize>) {
        self.found(count);
    }
}
