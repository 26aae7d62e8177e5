//! Finds the places of a source file that can be wrong, and the change of each.
//!
//! Only code whose change a test of the rules could notice is changed: no test code, no value
//! computed at compile time (a mutant is selected when the program starts), and nothing inside
//! macros.

use proc_macro2::Span;
use std::ops::Range;
use syn::{spanned::Spanned, visit::Visit};

/// A place in a source file and its replacement.
#[derive(Clone, Debug)]
pub struct Site {
    /// Byte range of the expression or storage proof in its file.
    pub range: Range<usize>,
    /// Text that replaces the place in the mutant.
    pub mutated: String,
    /// True if the place is a storage proof, which is removed instead of replaced.
    pub is_storage_proof: bool,
    /// Description of the change, for reports.
    pub change: String,
    /// Line of the change in its file.
    pub line: usize,
    /// Column of the change in its line.
    pub column: usize,
}

/// Finds all sites of a source text.
///
/// # Errors
/// The parser's error if the text is not Rust.
pub fn find(text: &str) -> syn::Result<Vec<Site>> {
    let file = syn::parse_file(text)?;
    let mut finder = Finder { text, sites: Vec::new() };
    finder.visit_file(&file);
    Ok(finder.sites)
}

struct Finder<'a> {
    text: &'a str,
    sites: Vec<Site>,
}

/// Methods and functions that one test can distinguish; each is replaced by the other.
const PAIRS: [(&str, &str); 5] = [
    ("checked_add", "checked_sub"),
    ("saturating_add", "saturating_sub"),
    ("wrapping_add", "wrapping_sub"),
    ("min", "max"),
    ("mul_div", "mul_div_up"),
];

fn partner(name: &str) -> Option<&'static str> {
    PAIRS.iter().find_map(|(one, other)| match name {
        _ if name == *one => Some(*other),
        _ if name == *other => Some(*one),
        _ => None,
    })
}

fn operator(op: &syn::BinOp) -> Option<(&'static str, &'static str)> {
    use syn::BinOp::*;
    Some(match op {
        Lt(_) => ("<", "<="),
        Le(_) => ("<=", "<"),
        Gt(_) => (">", ">="),
        Ge(_) => (">=", ">"),
        Eq(_) => ("==", "!="),
        Ne(_) => ("!=", "=="),
        And(_) => ("&&", "||"),
        Or(_) => ("||", "&&"),
        Add(_) => ("+", "-"),
        Sub(_) => ("-", "+"),
        _ => return None,
    })
}

/// A condition that contains `let` cannot be part of another expression.
fn has_let(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        syn::Expr::Paren(inner) => has_let(&inner.expr),
        _ => false,
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        let list = attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test");
        path.is_ident("test") || (path.is_ident("cfg") && list)
    })
}

/// Storage proofs that only have an effect; the code compiles without them.
fn has_effect(expression: &syn::Expr) -> bool {
    use syn::BinOp::*;
    match expression {
        syn::Expr::Assign(_) => true,
        syn::Expr::Binary(binary) => {
            matches!(binary.op, AddAssign(_) | SubAssign(_) | BitOrAssign(_) | BitAndAssign(_) | MulAssign(_))
        }
        syn::Expr::Try(tried) => matches!(*tried.expr, syn::Expr::MethodCall(_) | syn::Expr::Call(_)),
        syn::Expr::MethodCall(call) => {
            ["push", "extend", "truncate", "rotate_right", "clear", "insert", "delete", "put"]
                .iter()
                .any(|name| call.method == name)
        }
        _ => false,
    }
}

/// Recognizes a guard: `if condition { return Err(..) }`.
fn is_guard(expression: &syn::ExprIf) -> bool {
    let [syn::Stmt::Expr(syn::Expr::Return(returned), _)] = &expression.then_branch.stmts[..] else {
        return false;
    };
    let Some(syn::Expr::Call(call)) = returned.expr.as_deref() else { return false };
    let syn::Expr::Path(path) = &*call.func else { return false };
    expression.else_branch.is_none() && path.path.is_ident("Err") && !has_let(&expression.cond)
}

impl Finder<'_> {
    fn source(&self, span: Span) -> &str {
        &self.text[span.byte_range()]
    }

    /// The text of `whole` in which `by` replaces `part`.
    fn replaced(&self, whole: Span, part: Span, by: &str) -> String {
        let (whole, part) = (whole.byte_range(), part.byte_range());
        format!("{}{by}{}", &self.text[whole.start..part.start], &self.text[part.end..whole.end])
    }

    fn add(&mut self, whole: Span, at: Span, mutated: String, change: String) {
        let (range, start) = (whole.byte_range(), at.start());
        let (line, column) = (start.line, start.column + 1);
        self.sites.push(Site { range, mutated, is_storage_proof: false, change, line, column });
    }

    fn swap_name(&mut self, whole: Span, name: &syn::Ident) {
        if let Some(other) = partner(&name.to_string()) {
            let mutated = self.replaced(whole, name.span(), other);
            self.add(whole, name.span(), mutated, format!("`{name}` -> `{other}`"));
        }
    }

    fn negate_filter(&mut self, call: &syn::ExprMethodCall) {
        let Some(syn::Expr::Closure(closure)) = call.args.last().filter(|_| call.method == "filter") else {
            return;
        };
        let body = closure.body.span();
        if !matches!(*closure.body, syn::Expr::Block(_)) && !has_let(&closure.body) {
            let mutated = format!("!({})", self.source(body));
            self.add(body, body, mutated, "the condition of `filter` negated".into());
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if item.sig.constness.is_none() && !is_test(&item.attrs) {
            syn::visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if item.sig.constness.is_none() && !is_test(&item.attrs) {
            syn::visit::visit_impl_item_fn(self, item);
        }
    }

    // Skipped: items that the compiler evaluates, or that contain no code.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_macro(&mut self, _: &'ast syn::Macro) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    fn visit_stmt(&mut self, storage_proof: &'ast syn::Stmt) {
        if let syn::Stmt::Expr(expression, Some(_)) = storage_proof
            && has_effect(expression)
        {
            let (span, start) = (storage_proof.span(), storage_proof.span().start());
            let first = self.source(span).lines().next().unwrap_or_default().to_string();
            self.sites.push(Site {
                range: span.byte_range(),
                mutated: String::new(),
                is_storage_proof: true,
                change: format!("left out: `{first}`"),
                line: start.line,
                column: start.column + 1,
            });
        }
        syn::visit::visit_stmt(self, storage_proof);
    }

    fn visit_expr(&mut self, expression: &'ast syn::Expr) {
        let whole = expression.span();
        match expression {
            syn::Expr::Binary(binary) if !has_let(expression) => {
                if let Some((now, other)) = operator(&binary.op) {
                    let mutated = self.replaced(whole, binary.op.span(), other);
                    self.add(whole, binary.op.span(), mutated, format!("`{now}` -> `{other}`"));
                }
            }
            syn::Expr::Unary(unary) if matches!(unary.op, syn::UnOp::Not(_)) => {
                let mutated = self.source(unary.expr.span()).to_string();
                self.add(whole, whole, mutated, "`!` left out".into());
            }
            syn::Expr::Lit(literal) => {
                if let syn::Lit::Int(number) = &literal.lit
                    && let Ok(value) = number.base10_parse::<u128>()
                {
                    let others = [value.checked_add(1), value.checked_sub(1)];
                    for other in others.into_iter().flatten() {
                        let mutated = format!("{other}{}", number.suffix());
                        self.add(whole, whole, mutated, format!("`{number}` -> `{other}`"));
                    }
                }
            }
            syn::Expr::MethodCall(call) => {
                self.swap_name(whole, &call.method);
                self.negate_filter(call);
            }
            syn::Expr::Call(call) => {
                if let syn::Expr::Path(path) = &*call.func
                    && let Some(last) = path.path.segments.last()
                {
                    self.swap_name(whole, &last.ident);
                }
            }
            syn::Expr::If(guard) if is_guard(guard) => {
                let condition = guard.cond.span();
                self.add(condition, condition, "false".into(), "the guard left out".into());
            }
            _ => {}
        }
        syn::visit::visit_expr(self, expression);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(text: &str) -> Vec<String> {
        find(text).expect("Rust").into_iter().map(|site| site.change).collect()
    }

    #[test]
    fn places_are_found_in_functions_and_nowhere_else() {
        let text = "const A: u64 = 1 + 2;
            const fn b() -> u64 { 3 }
            fn c(x: [u8; 4]) -> bool { !d && x[0] < 5 }
            #[cfg(test)] mod tests { fn e() -> bool { 1 == 2 } }";
        let found = ["`&&` -> `||`", "`!` left out", "`<` -> `<=`", "`0` -> `1`", "`5` -> `6`", "`5` -> `4`"];
        assert_eq!(changes(text), found);
    }

    #[test]
    fn guards_storage_proofs_filters_and_pairs_are_found() {
        let text = "fn f() -> R { if a > b { return Err(C); } w.put(k, &v)?; s.filter(|x| x.y); t.min(u) }";
        let found = [
            "the guard left out",
            "`>` -> `>=`",
            "left out: `w.put(k, &v)?;`",
            "the condition of `filter` negated",
            "`min` -> `max`",
        ];
        assert_eq!(changes(text), found);
        assert!(changes("fn f() { if let Some(x) = y && x { return Err(z); } }").is_empty());
    }
}
