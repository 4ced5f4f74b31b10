//! The syntax tree of a chat template. Owned, shareable between threads, never deeper than the parser's cap.
//!
//! Chains (`a + b + c`, `x.y[0]|f`) are flat lists rather than nested nodes, so that their length costs no stack.

use std::sync::Arc;

/// An expression and the line it stands on.
#[derive(Debug)]
pub struct Expr {
    pub line: u32,
    pub kind: ExprKind,
}

#[derive(Debug)]
pub enum ExprKind {
    Const(Const),
    Name(Arc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    /// `then if test else otherwise`
    If {
        test: Box<Expr>,
        then: Box<Expr>,
        otherwise: Option<Box<Expr>>,
    },
    Or(Vec<Expr>),
    And(Vec<Expr>),
    Not(Box<Expr>),
    Neg(Box<Expr>),
    /// `a < b <= c`: each link compares with the operand before it.
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    /// Left-associative arithmetic of one precedence.
    Arithmetic(Box<Expr>, Vec<(Operator, Expr)>),
    /// `a ~ b ~ c`
    Concat(Vec<Expr>),
    /// A primary with what follows it: attributes, subscripts, calls, filters, tests.
    Postfix(Box<Expr>, Vec<(u32, Post)>),
}

#[derive(Debug, Clone)]
pub enum Const {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

#[derive(Debug)]
pub enum Post {
    Attr(Arc<str>),
    Item(Expr),
    Slice(Option<Expr>, Option<Expr>, Option<Expr>),
    Call(Args),
    Filter(Arc<str>, Args),
    Test { name: Arc<str>, args: Args, negated: bool },
}

#[derive(Debug, Default)]
pub struct Args {
    pub positional: Vec<Expr>,
    pub named: Vec<(Arc<str>, Expr)>,
    /// `*args`
    pub splat: Option<Box<Expr>>,
    /// `**kwargs`
    pub named_splat: Option<Box<Expr>>,
}

/// What `set` and `for` assign to.
#[derive(Debug)]
pub enum Target {
    Name(Arc<str>),
    /// `namespace.attribute`
    Attr(Arc<str>, Arc<str>),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub struct Stmt {
    pub line: u32,
    pub kind: StmtKind,
}

pub type Block = Vec<Stmt>;

#[derive(Debug)]
pub enum StmtKind {
    Text(Arc<str>),
    Output(Expr),
    If {
        branches: Vec<(Expr, Block)>,
        otherwise: Block,
    },
    For(Arc<For>),
    Set(Target, Expr),
    /// `{% set x | filter %}…{% endset %}`; the filters are a postfix chain without its primary.
    SetBlock(Target, Vec<(u32, Post)>, Block),
    Filter(Vec<(u32, Post)>, Block),
    With(Vec<(Target, Expr)>, Block),
    Macro(Arc<Macro>),
    CallBlock(Expr, Arc<Macro>),
    /// `{% generation %}`: marks the assistant's tokens for training; renders as its body.
    Generation(Block),
    Do(Expr),
    Break,
    Continue,
}

#[derive(Debug)]
pub struct For {
    pub target: Target,
    pub iter: Expr,
    pub filter: Option<Expr>,
    pub body: Block,
    pub otherwise: Block,
    pub recursive: bool,
}

#[derive(Debug)]
pub struct Macro {
    pub name: Arc<str>,
    pub params: Vec<(Arc<str>, Option<Expr>)>,
    pub body: Block,
}
