#[db_locked(timeout = 1)]
impl<T: Item> Service for Cache<T> {
    const SIZE: usize = 1;
    type Error = Error;

    /// Fills it.
    fn fill(&self) -> Result<(), Error> {
        self.inner()
    }

    #[db_locked(skip)]
    fn size(&self) -> usize {
        1
    }

    #[db_locked(keys = ["a/{x}", "b/{self.id}", NAME], min_hold = 1, max_hold = "1m", ttl = 30, fencing, reentrant = false, on_lost = finish)]
    async fn refill(&self, x: u8) -> Result<(), Error> {
        self.inner().await
    }
}
