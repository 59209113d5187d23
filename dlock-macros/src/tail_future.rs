//! Functions without `async` that return a future all the same.
//!
//! Locking only the construction of the future would let its body run unlocked, so the lock goes
//! inside: into the `async` block that is the whole body. async-trait leaves functions of this form.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::punctuated::Punctuated;
use syn::{
    Block, Expr, ExprAsync, GenericArgument, Local, Pat, Path, PathArguments, ReturnType, Stmt,
    Token, Type, TypeParamBound,
};

use crate::function::mentions;

#[cfg(test)]
mod tests;

/// A return type that is a future, or holds one.
pub(crate) enum FutureType {
    /// The future itself, with the type of its output where the type says it.
    Whole(Option<Box<Type>>),
    /// A future inside another type.
    Within,
}

/// A body whose tail is an `async` block.
pub(crate) struct TailFuture {
    block: Block,
    /// Finds the `async` block in the tail.
    block_in: fn(&mut Expr) -> Option<&mut ExprAsync>,
}

/// The parts of the `async` block.
pub(crate) struct Parts {
    /// `let x = x;`: what async-trait moves into the block before the user's body starts.
    pub(crate) bindings: TokenStream,
    pub(crate) body: TokenStream,
    /// What `self` is called behind the bindings.
    pub(crate) this: Option<Ident>,
    /// `move`, if the block has it.
    pub(crate) capture: Option<Token![move]>,
}

/// Looks for a future in a return type. Types are known by their names here, as the user wrote them.
pub(crate) fn future_type(output: &ReturnType) -> Option<FutureType> {
    match output {
        ReturnType::Default => None,
        ReturnType::Type(_, ty) => search(ty),
    }
}

fn search(ty: &Type) -> Option<FutureType> {
    match ty {
        Type::Group(group) => search(&group.elem),
        Type::Paren(paren) => search(&paren.elem),
        Type::ImplTrait(ty) => search_bounds(&ty.bounds),
        Type::TraitObject(ty) => search_bounds(&ty.bounds),
        Type::Reference(reference) => search(&reference.elem).map(|_| FutureType::Within),
        Type::Tuple(tuple) => tuple
            .elems
            .iter()
            .find_map(search)
            .map(|_| FutureType::Within),
        Type::Path(ty) => {
            let segment = ty.path.segments.last()?;
            let mut arguments = type_arguments(&segment.arguments);
            match segment.ident.to_string().as_str() {
                "BoxFuture" | "LocalBoxFuture" => {
                    Some(FutureType::Whole(arguments.next().cloned().map(Box::new)))
                }
                "Pin" | "Box" => arguments.next().and_then(search),
                _ => arguments.find_map(search).map(|_| FutureType::Within),
            }
        }
        _ => None,
    }
}

fn search_bounds(bounds: &Punctuated<TypeParamBound, Token![+]>) -> Option<FutureType> {
    bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else {
            return None;
        };
        let segment = bound.path.segments.last()?;
        let is_future = ["Future", "IntoFuture", "FusedFuture", "TryFuture"]
            .iter()
            .any(|name| segment.ident == name);
        is_future.then(|| FutureType::Whole(output_of(&segment.arguments)))
    })
}

/// The `T` of `Future<Output = T>`.
fn output_of(arguments: &PathArguments) -> Option<Box<Type>> {
    let PathArguments::AngleBracketed(arguments) = arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::AssocType(assoc) if assoc.ident == "Output" => {
            Some(Box::new(assoc.ty.clone()))
        }
        _ => None,
    })
}

fn type_arguments(arguments: &PathArguments) -> impl Iterator<Item = &Type> {
    let arguments = match arguments {
        PathArguments::AngleBracketed(arguments) => Some(arguments.args.iter()),
        _ => None,
    };
    arguments
        .into_iter()
        .flatten()
        .filter_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        })
}

impl TailFuture {
    /// `None` when the body is anything but one `async` block, possibly boxed: what runs before the
    /// block would run without the lock.
    pub(crate) fn find(body: TokenStream) -> Option<Self> {
        Self::find_by(body, async_block)
    }

    /// The same for a body that only drives an `async` block: `task::block_on(async { … })`, as the attributes of actix and
    /// async-std leave it.
    pub(crate) fn find_driven(body: TokenStream) -> Option<Self> {
        if !mentions(&body, "block_on") {
            return None;
        }
        Self::find_by(body, driven_block)
    }

    fn find_by(
        body: TokenStream,
        block_in: fn(&mut Expr) -> Option<&mut ExprAsync>,
    ) -> Option<Self> {
        let mut block = Block {
            brace_token: syn::token::Brace::default(),
            stmts: Vec::new(),
        };
        block.stmts = syn::parse::Parser::parse2(Block::parse_within, body).ok()?;
        let (last, before) = block.stmts.split_last_mut()?;
        let tail = tail_of(last)?;
        let is_whole = before
            .iter()
            .all(|statement| matches!(statement, Stmt::Item(_)));
        (is_whole && block_in(tail).is_some()).then_some(TailFuture { block, block_in })
    }

    // Input:
    //     Box::pin(async move { let x = x; body })
    //
    // Output:
    //     Box::pin(async move { locked(let x = x;, body) })
    pub(crate) fn splice(mut self, locked: impl FnOnce(Parts) -> TokenStream) -> TokenStream {
        if let Some(found) = self
            .block
            .stmts
            .last_mut()
            .and_then(tail_of)
            .and_then(self.block_in)
        {
            let parts = Parts::of(found);
            found.block.stmts = vec![Stmt::Expr(Expr::Verbatim(locked(parts)), None)];
        }
        self.block
            .stmts
            .iter()
            .map(ToTokens::to_token_stream)
            .collect()
    }
}

impl Parts {
    fn of(block: &ExprAsync) -> Self {
        let statements = &block.block.stmts;
        let bindings = statements
            .iter()
            .take_while(|statement| is_binding(statement))
            .count();
        let (bindings, body) = statements.split_at(bindings);
        let this = bindings.iter().find_map(|statement| match statement {
            Stmt::Local(local) if moved_name(local).is_some_and(|name| name == "self") => {
                bound_name(local).cloned()
            }
            _ => None,
        });
        Parts {
            bindings: quote!(#(#bindings)*),
            body: quote!(#(#body)*),
            this,
            capture: block.capture,
        }
    }
}

/// The value of a body's last statement.
fn tail_of(statement: &mut Stmt) -> Option<&mut Expr> {
    match statement {
        Stmt::Expr(tail, None) | Stmt::Expr(tail @ Expr::Return(_), Some(_)) => Some(tail),
        _ => None,
    }
}

/// The `async` block of `async move {}`, `Box::pin(async move {})` or `async move {}.boxed()`.
fn async_block(expression: &mut Expr) -> Option<&mut ExprAsync> {
    match expression {
        Expr::Async(found) => Some(found),
        Expr::Group(group) => async_block(&mut group.expr),
        Expr::Paren(paren) => async_block(&mut paren.expr),
        Expr::Cast(cast) => async_block(&mut cast.expr),
        Expr::Return(returned) => async_block(returned.expr.as_mut()?),
        Expr::Call(call) if call.args.len() == 1 => {
            let Expr::Path(function) = &*call.func else {
                return None;
            };
            let name = &function.path.segments.last()?.ident;
            if name == "pin" || name == "new" || name == "from" {
                async_block(call.args.first_mut()?)
            } else {
                None
            }
        }
        Expr::MethodCall(call) => {
            let keeps_the_output = ["boxed", "boxed_local", "instrument", "in_current_span"];
            if keeps_the_output.iter().any(|name| call.method == name) {
                async_block(&mut call.receiver)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// The `async` block of `path::block_on(async { … })` and `Runtime::new().block_on(async { … })`. What makes the runtime is
/// run without the lock, so it may be no more than a call without arguments.
fn driven_block(expression: &mut Expr) -> Option<&mut ExprAsync> {
    let argument = match expression {
        Expr::Group(group) => return driven_block(&mut group.expr),
        Expr::Return(returned) => return driven_block(returned.expr.as_mut()?),
        Expr::Call(call) if call.args.len() == 1 => match &*call.func {
            Expr::Path(function) if ends_with(&function.path, "block_on") => {
                call.args.first_mut()?
            }
            _ => return None,
        },
        Expr::MethodCall(call) if call.method == "block_on" && call.args.len() == 1 => {
            let makes_a_runtime = matches!(
                &*call.receiver,
                Expr::Call(make) if make.args.is_empty() && matches!(*make.func, Expr::Path(_))
            );
            makes_a_runtime.then(|| call.args.first_mut()).flatten()?
        }
        _ => return None,
    };
    match argument {
        Expr::Async(block) => Some(block),
        _ => None,
    }
}

/// Whether a statement only moves a parameter into the block, as async-trait writes it. What else the
/// user does first belongs under the lock.
fn is_binding(statement: &Stmt) -> bool {
    match statement {
        Stmt::Local(local) => match (moved_name(local), bound_name(local)) {
            (Some(moved), Some(bound)) => moved == bound || moved == "self",
            (Some(moved), None) => {
                moved.to_string().starts_with("__arg") && !matches!(local.pat, Pat::Type(_))
            }
            _ => false,
        },
        // `if let Some(__ret) = None::<Ret> { return __ret; }` never runs: it guides type inference.
        Stmt::Expr(Expr::If(branch), _) => match &*branch.cond {
            Expr::Let(condition) => {
                matches!(&*condition.expr, Expr::Path(path) if ends_with(&path.path, "None"))
            }
            _ => false,
        },
        _ => false,
    }
}

/// The `x` of `let … = x;` and of `let … = { let x = x; x };`.
fn moved_name(local: &Local) -> Option<&Ident> {
    match &*local.init.as_ref()?.expr {
        Expr::Path(path) => path.path.get_ident(),
        Expr::Block(block) => match block.block.stmts.as_slice() {
            [Stmt::Local(inner), Stmt::Expr(Expr::Path(tail), None)] => {
                let name = moved_name(inner)?;
                (bound_name(inner)? == name && tail.path.is_ident(name)).then_some(name)
            }
            _ => None,
        },
        _ => None,
    }
}

fn bound_name(local: &Local) -> Option<&Ident> {
    match &local.pat {
        Pat::Ident(pattern) if pattern.subpat.is_none() => Some(&pattern.ident),
        _ => None,
    }
}

fn ends_with(path: &Path, name: &str) -> bool {
    path.segments
        .last()
        .is_some_and(|segment| segment.ident == name)
}
