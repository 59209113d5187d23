/// Settles an account.
#[db_locked(key = "settle/{account.id}", timeout = 2.5)]
pub fn settle(account: &Account) -> Result<(), AppError> {
    account.settle()
}
