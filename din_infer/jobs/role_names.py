"""Common names of users, items, times and labels, by which columns are guessed."""

__all__ = ["NAMES", "TIME_ENDS", "is_named", "plain_name"]

TIME_ENDS = ("_at", "_time", "_ts", "_date", "timestamp", "datetime")
# In small letters without underscores, as `plain_name` writes them.
NAMES = {
    "user": "user userid uid visitor visitorid customer customerid member memberid"
    " reviewer reviewerid viewer viewerid listener listenerid reader readerid buyer"
    " buyerid shopper shopperid account accountid client clientid profile profileid"
    " subscriber subscriberid player playerid person personid device deviceid",
    "item": "item itemid goods goodsid product productid sku skuid movie movieid video"
    " videoid article articleid news newsid song songid book bookid asin ad adid"
    " adgroupid track trackid post postid content contentid show showid game gameid"
    " recipe recipeid listing listingid hotel hotelid business businessid app appid"
    " document documentid story storyid page pageid offer offerid job jobid",
    "time": "time timestamp ts eventtime datetime date timestampms unixtime createdat"
    " unixreviewtime",
    "action": "action actiontype event eventtype eventname behavior behaviortype btag",
    "label": "label click clicked isclick isclicked",
    "weight": "weight sampleweight rowweight importance",
    "item_columns": "cate cateid catid category categoryid categorycode brand brandid"
    " shop shopid seller sellerid store storeid merchantid genre genres price",
}


def plain_name(name: str) -> str:
    """Write a name in small letters, without what joins words."""
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def is_named(name: str, role: str) -> bool:
    """Whether a column's name is a common one of a role."""
    return plain_name(name) in NAMES[role].split()
