//! Lists in parts: which part is wanted, and the part with the number of all.

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Its number; the first is 0.
    pub number: usize,
    /// How many entries a page has; with 0 only the total is told.
    pub size: usize,
}

impl Page {
    /// The first entries of a list, so many at the most.
    #[must_use]
    pub fn first(size: usize) -> Self {
        Self { number: 0, size }
    }

    /// How many entries come before it.
    #[must_use]
    pub fn offset(self) -> usize {
        self.number.saturating_mul(self.size)
    }

    pub(super) fn range(self) -> Range {
        let stored = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        Range { offset: stored(self.offset()), limit: stored(self.size) }
    }
}

/// A page as statements take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: i64,
    pub(super) limit: i64,
}

impl Range {
    /// What tells the number of all if the page itself is empty: every row carries it.
    pub(super) const COUNT: Self = Self { offset: 0, limit: 1 };

    /// Whether a page without a row says nothing about how many there are.
    pub(super) fn may_hide(self) -> bool {
        self.offset > 0 || self.limit == 0
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paged<T> {
    /// The entries of the page, in the list's order.
    pub items: Vec<T>,
    /// How many entries the whole list has.
    pub total: usize,
}

impl<T> Paged<T> {
    /// Whether entries follow this page.
    #[must_use]
    pub fn has_more(&self, page: Page) -> bool {
        page.offset().saturating_add(self.items.len()) < self.total
    }

    pub(super) fn of(items: Vec<T>, total: Option<i64>) -> Self {
        let total = total.and_then(|total| usize::try_from(total).ok()).unwrap_or(0);
        Self { items, total }
    }

    /// The same page of something else.
    #[must_use]
    pub fn map<U>(self, to: impl FnMut(T) -> U) -> Paged<U> {
        Paged { items: self.items.into_iter().map(to).collect(), total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_knows_whether_more_follows() {
        let page = |number, size, found, total| Paged { items: vec![(); found], total }.has_more(Page { number, size });
        assert!(page(0, 2, 2, 3));
        assert!(!page(1, 2, 1, 3));
        assert!(!page(9, 2, 0, 3), "nothing follows what lies behind the end");
        assert!(page(0, 0, 0, 3));
    }
}
