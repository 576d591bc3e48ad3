// How cakefs says that something failed: an Error in a Result, never an exception.
//
// `Errc` is the whole vocabulary.  Each value has one errno (fs/errno_map.cc) and one exit status
// (tools/command.cc); add a value only when a caller must act differently on it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace cake {

enum class Errc {
  not_found,     // no such repo, revision or file
  stale,         // a number whose row is gone: look the name up again
  denied,        // token missing, gated, forbidden
  no_space,      // budget full and all pinned, or disk full
  offline,       // no route, or offline mode and the bytes are absent
  timeout,       // a deadline passed
  rate_limited,  // the hub asks us to wait longer than the deadline
  upstream,      // malformed or failing answer from the hub
  corrupt,       // digest, checksum or structure is wrong
  io,            // local disk or other system call
  cancelled,     // interrupted, killed or unmounting
  invalid,       // bad argument or name
  unsupported,   // known but not possible here
};

// "not_found", "denied", ...: stable words for logs and JSON.
std::string_view errc_name(Errc code);

struct Error {
  Errc code = Errc::io;
  std::string message;

  // The same error with what only the caller knew in front: "reading x: ..."
  Error with(std::string_view context) const& {
    return Error{code, std::string(context) + ": " + message};
  }
};

// A value or an Error.  Thread-compatible.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}
  // std::optional results: `return std::nullopt;` and `return value;` work unchanged.
  template <typename U>
  requires(std::is_convertible_v<U&&, T> && !std::is_same_v<std::decay_t<U>, T> &&
           !std::is_same_v<std::decay_t<U>, Error> && !std::is_same_v<std::decay_t<U>, Result>)
      Result(U&& value)
      : state_(std::in_place_index<0>, T(std::forward<U>(value))) {}

  explicit operator bool() const { return state_.index() == 0; }
  bool ok() const { return state_.index() == 0; }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}
  explicit operator bool() const { return !error_.has_value(); }
  bool ok() const { return !error_.has_value(); }
  void value() const {}
  const Error& error() const& { return *error_; }
  Error&& error() && { return std::move(*error_); }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace cake

// Evaluates to the value of a Result, or returns its error from the enclosing function.
// A GNU statement expression: both compilers we support have it, and the alternative is an out
// parameter at every call.
#define CAKE_TRY(expression)                                         \
  __extension__({                                                    \
    auto cake_try_result = (expression);                             \
    if (!cake_try_result) return std::move(cake_try_result).error(); \
    std::move(cake_try_result).value();                              \
  })

// A broken invariant is a bug, not an Error: says where, then aborts.
#define CAKE_CHECK(condition)                                               \
  do {                                                                      \
    if (!(condition)) ::cake::check_failed(#condition, __FILE__, __LINE__); \
  } while (false)

namespace cake {
[[noreturn]] void check_failed(const char* condition, const char* file, int line);
}
