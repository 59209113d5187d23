impl Service {
    #[db_locked(
        key = format!("{}/{id}", self.tenant),
        mode = shared,
        timeout = self.timeout,
        locker = self.locker,
        crate = vendored::dlock,
    )]
    async fn refill<T: Item>(&mut self, id: u8, (a, b): (T, T)) -> Result<impl Iterator<Item = T>, Error> {
        Ok([a, b].into_iter())
    }
}
