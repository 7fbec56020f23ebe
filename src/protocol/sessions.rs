//! Where a protocol keeps the sessions of its connections.

/// Sessions with stable numbers. One that is nothing takes next to nothing.
pub(super) struct Sessions<S> {
    places: Vec<Option<S>>,
    free: Vec<usize>,
}

impl<S> Sessions<S> {
    pub(super) const fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Gives the number of its place.
    pub(super) fn insert(&mut self, session: S) -> usize {
        if let Some(index) = self.free.pop() {
            if let Some(place) = self.places.get_mut(index) {
                *place = Some(session);
                return index;
            }
        }
        self.places.push(Some(session));
        self.places.len() - 1
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut S> {
        self.places.get_mut(index)?.as_mut()
    }

    pub(super) fn try_remove(&mut self, index: usize) -> Option<S> {
        let session = self.places.get_mut(index)?.take()?;
        self.free.push(index);
        Some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_only_after_its_session_has_gone() {
        let mut sessions = Sessions::new();
        let (a, b) = (sessions.insert('a'), sessions.insert('b'));
        assert_eq!(sessions.try_remove(a), Some('a'));
        assert_eq!(sessions.try_remove(a), None);
        assert_eq!(sessions.get_mut(a), None);
        let c = sessions.insert('c');
        assert_eq!(c, a);
        assert_eq!(sessions.get_mut(b), Some(&mut 'b'));
        assert_eq!(sessions.insert('d'), 2);
        assert_eq!(sessions.get_mut(usize::MAX), None);
    }
}
