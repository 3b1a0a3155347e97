//! The system calls that no safe library offers. The only unsafe code of the project is here.
