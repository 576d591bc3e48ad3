#include "fetch/url.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

Url url(std::string_view text) {
  Result<Url> parsed = Url::parse(text);
  EXPECT_TRUE(parsed) << text;
  return parsed ? *parsed : Url{};
}

TEST(Url, SplitsAndLowersSchemeAndHost) {
  const Url got = url("HTTPS://Hub.Example:8443/a%20b?x=1&y=2#part");
  EXPECT_EQ(got, (Url{"https", "hub.example", 8443, "/a%20b", "x=1&y=2"}));
  EXPECT_EQ(got.str(), "https://hub.example:8443/a%20b?x=1&y=2");
}

TEST(Url, KnowsDefaultPorts) {
  EXPECT_EQ(url("http://h").port, 80);
  EXPECT_EQ(url("https://h:").port, 443);
  EXPECT_EQ(url("https://h:443/x").str(), "https://h/x");
  EXPECT_EQ(url("http://[::1]:81/").host, "[::1]");
}

TEST(Url, EncodesWhatServersLeaveRaw) {
  EXPECT_EQ(url("http://h/a b/\xc3\xa9").path, "/a%20b/%C3%A9");
}

TEST(Url, RefusesHostileText) {
  for (const char* text : {"",
                           "ftp://h/",
                           "file:///etc/passwd",
                           "http:/h",
                           "http://",
                           "http:///x",
                           "h/x",
                           "http://user:pw@h/",
                           "http://h@evil/",
                           "http://h\\@evil/",
                           "http://h/\r\nX: y",
                           "http://h:0/",
                           "http://h:65536/",
                           "http://h:8x/",
                           "http://[::1",
                           "http://[zz::]/",
                           "http://a..b/",
                           "http://h%2fe/",
                           "http:// h/",
                           "http://-h/"}) {
    const auto got = Url::parse(text);
    ASSERT_FALSE(got) << text;
    EXPECT_EQ(got.error().code, Errc::invalid);
  }
  EXPECT_FALSE(Url::parse("http://h/" + std::string(20'000, 'a')));
  EXPECT_FALSE(Url::parse(std::string_view("http://h/\0x", 11)));
}

TEST(Url, ErrorsDoNotRepeatPasswords) {
  const auto got = Url::parse("https://me:secret@hub/");
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().message.find("secret"), std::string::npos);
}

TEST(Url, ResolvesReferences) {
  const Url base = url("https://h/a/b/c?q=1");
  const auto resolved = [&](std::string_view text) {
    const auto got = base.resolve(text);
    return got ? got->str() : "error";
  };
  EXPECT_EQ(resolved("/x/y?z"), "https://h/x/y?z");
  EXPECT_EQ(resolved("d"), "https://h/a/b/d");
  EXPECT_EQ(resolved("../d"), "https://h/a/d");
  EXPECT_EQ(resolved("../../../../d/."), "https://h/d/");
  EXPECT_EQ(resolved("?z=2"), "https://h/a/b/c?z=2");
  EXPECT_EQ(resolved("//other/x"), "https://other/x");
  EXPECT_EQ(resolved("http://other:81/x#f"), "http://other:81/x");
  EXPECT_EQ(resolved("x:y"), "error");
  EXPECT_EQ(resolved("//u:p@other/x"), "error");
  EXPECT_EQ(resolved("/a:b/c"), "https://h/a:b/c");
}

TEST(Url, OriginIsSchemeHostAndPort) {
  const Url base = url("https://h/a");
  EXPECT_TRUE(base.same_origin(url("https://H:443/b?c")));
  EXPECT_FALSE(base.same_origin(url("http://h:443/a")));
  EXPECT_FALSE(base.same_origin(url("https://h:444/a")));
  EXPECT_FALSE(base.same_origin(url("https://h.evil/a")));
  EXPECT_TRUE(url("https://h/b").is_of(url("http://h/a")));
  EXPECT_FALSE(url("http://h/b").is_of(url("https://h/a")));
  EXPECT_FALSE(url("https://h/b").is_of(url("http://h:8080/a")));
  EXPECT_FALSE(url("https://i/b").is_of(url("http://h/a")));
}

TEST(Url, RedactedHidesSignatures) {
  EXPECT_EQ(url("https://cdn/f?Signature=abc").redacted(), "https://cdn/f");
}

TEST(Url, FindsQueryParameters) {
  const Url got = url("https://h/?a&bb=1&b=x%2Fy%&b=2");
  EXPECT_EQ(got.find_query("b"), "x/y%");
  EXPECT_EQ(got.find_query("bb"), "1");
  EXPECT_EQ(got.find_query("a"), std::nullopt);
}

TEST(Url, EndpointLosesSlashesAndRefusesQueries) {
  EXPECT_EQ(parse_endpoint("http://h:81/hub//")->str(), "http://h:81/hub");
  EXPECT_EQ(parse_endpoint("https://huggingface.co/")->str(), "https://huggingface.co");
  EXPECT_FALSE(parse_endpoint("https://h/?x"));
  EXPECT_FALSE(parse_endpoint("https://u:p@h/"));
}

TEST(Url, EncodesNames) {
  EXPECT_EQ(encode_segment("refs/pr/7"), "refs%2Fpr%2F7");
  EXPECT_EQ(encode_path("a b/#?%+\xc3\xa9.bin"), "a%20b/%23%3F%25%2B%C3%A9.bin");
}

}  // namespace
}  // namespace cake
