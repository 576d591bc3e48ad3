#include "fetch/reference.h"

#include <algorithm>
#include <array>

#include "store/base/bytes.h"

namespace cake {
namespace {

struct TypeName {
  std::string_view word;
  RepoType type;
};
constexpr std::array<TypeName, 3> kPlurals = {
    {{"models", RepoType::model}, {"datasets", RepoType::dataset}, {"spaces", RepoType::space}}};
constexpr std::array<TypeName, 3> kSingulars = {
    {{"model", RepoType::model}, {"dataset", RepoType::dataset}, {"space", RepoType::space}}};
// Longest path (4,096) and revision (255, each byte escaped) with room for the rest.
constexpr size_t kMaxBytes = 8192;

Error wrong(std::string_view text, std::string_view why) {
  return Error{Errc::invalid, cat("'", text.substr(0, 200), "' is not a reference: ", why)};
}

// Cuts the part before the first `separator` off `rest`.
std::string_view take_until(std::string_view& rest, char separator) {
  const size_t end = std::min(rest.find(separator), rest.size());
  const std::string_view part = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return part;
}

template <size_t N>
std::optional<RepoType> take_type(std::string_view& rest, const std::array<TypeName, N>& words) {
  for (const TypeName& name : words) {
    if (!rest.starts_with(name.word) || rest.size() <= name.word.size() ||
        rest[name.word.size()] != '/')
      continue;
    rest.remove_prefix(name.word.size() + 1);
    return name.type;
  }
  return std::nullopt;
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    std::byte byte{};
    if (i + 2 >= text.size() || !parse_hex(text.substr(i + 1, 2), {&byte, 1})) return std::nullopt;
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

std::string encode_revision(std::string_view revision) {
  std::string out;
  for (const char letter : revision) {
    if (letter == '/')
      out += "%2F";
    else if (letter == '%')
      out += "%25";
    else
      out += letter;
  }
  return out;
}

// REV of "REV/PATH".  In URLs the two namespaces of the hub's own refs may hold plain slashes.
std::string take_revision(std::string_view& rest, bool is_url) {
  if (is_url && rest.starts_with("refs/")) {
    const std::string_view whole = rest;
    take_until(rest, '/');
    const std::string_view kind = take_until(rest, '/');
    const std::string_view name = take_until(rest, '/');
    if ((kind == "pr" || kind == "convert") && !name.empty()) return cat("refs/", kind, "/", name);
    rest = whole;
  }
  return std::string(take_until(rest, '/'));
}

}  // namespace

std::string Reference::text() const {
  std::string out = "hf:";
  if (repo.type != RepoType::model) out += cat(repo_type_plural(repo.type), "/");
  out += repo.id;
  if (!revision.empty()) out += "@" + encode_revision(revision);
  if (!path.empty()) out += "/" + path;
  return out;
}

Result<Reference> parse_reference(std::string_view text) {
  std::string_view rest = text;
  if (text.size() > kMaxBytes) return wrong(text, "it is too long");
  Reference reference;
  const bool is_url = rest.starts_with("hf://");
  if (is_url)
    rest.remove_prefix(5);
  else if (rest.starts_with("hf:"))
    rest.remove_prefix(3);
  else if (rest.find("://") != std::string_view::npos)
    return wrong(text, "give ORG/NAME, hf:ORG/NAME or hf://ORG/NAME");
  while (rest.ends_with('/')) rest.remove_suffix(1);

  if (const auto type = take_type(rest, kPlurals))
    reference.repo.type = *type;
  else if (const auto cached = take_type(rest, kSingulars); cached && !is_url)
    reference.repo.type = *cached;

  // ORG ends at the first slash, unless an @ comes before it: then it is a repo without namespace.
  const size_t slash = rest.find('/');
  const size_t at = rest.find('@');
  const bool has_namespace = slash != std::string_view::npos && (at > slash);
  std::string id;
  if (has_namespace) {
    const std::string_view author = take_until(rest, '/');
    if (!is_valid_repo_part(author)) return wrong(text, cat("no author is called '", author, "'"));
    id = cat(author, "/");
  }
  const size_t name_end = std::min(rest.find_first_of("@/"), rest.size());
  const std::string_view name = rest.substr(0, name_end);
  if (name.empty()) return wrong(text, "give ORG/NAME");
  if (!is_valid_repo_part(name)) return wrong(text, cat("no repo is called '", name, "'"));
  id += name;
  if (!is_valid_repo_id(id)) return wrong(text, cat("no repo is called '", id, "'"));
  reference.repo.id = id;
  rest.remove_prefix(name_end);

  if (rest.starts_with('@')) {
    rest.remove_prefix(1);
    const std::optional<std::string> revision = percent_decode(take_revision(rest, is_url));
    if (!revision || !is_valid_revision(*revision)) return wrong(text, "the revision is malformed");
    reference.revision = *revision;
  } else if (rest.starts_with('/')) {
    rest.remove_prefix(1);
  }
  if (!rest.empty() && !is_valid_repo_path(rest)) return wrong(text, "the path is malformed");
  reference.path = std::string(rest);
  return reference;
}

bool is_whole_hub(std::string_view text) {
  return text == "hf:" || text == "hf://" || text == "hf:/";
}

bool is_local_path(std::string_view text) {
  return text.starts_with('/') || text == "." || text == ".." || text.starts_with("./") ||
         text.starts_with("../");
}

}  // namespace cake
